"The type checker of all tests: an int passes where a float is asked for, as everywhere in Python."
import inspect

from beartype import BeartypeConf, beartype
from fastcore.script import Param

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

def check(f):
    "Check a function, but for commands whose annotations are for the shell; jaxtyping for Python 3.10 passes over their `no_type_check`"
    if inspect.isfunction(f) and any(isinstance(o, Param) for o in f.__annotations__.values()): return f
    return checked(f)
