__version__ = "0.2.0"

import warnings
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning) # fastai still uses it when it is imported
