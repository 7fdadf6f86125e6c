__version__ = "0.2.0"

import warnings
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning) # fastai still uses it when it is imported

import sys
from os.path import basename

def _stopped_early(kind, error, trace):
    "Ctrl-C before a command has begun is one line, too: importing torch takes seconds"
    if kind is KeyboardInterrupt: print(f'{basename(sys.argv[0])}: stopped', file=sys.stderr)
    else: sys.__excepthook__(kind, error, trace)

if basename((sys.argv or [''])[0]).startswith('spice_'): sys.excepthook = _stopped_early
