__version__ = "0.0.1"

import warnings
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning) # fastai still uses it when it is imported
