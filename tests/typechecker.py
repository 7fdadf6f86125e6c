"The type checker of all tests: an int passes where a float is asked for, as everywhere in Python."
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
