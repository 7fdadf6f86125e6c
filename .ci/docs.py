"""Process the notebooks for the website: everything before Quarto itself. Writes `_proc`; then `quarto render _proc` makes the site.

    python .ci/docs.py && quarto render _proc --no-cache
"""
import os, shutil
from pathlib import Path

SKIP_FOLDERS = r'^[_.]|^(spice|tests|benchmarks|build|dist)$|\.egg-info$'
SKIP_FILES = r'^[_.]|^spice_demo.*\.png$|\.(py|toml|ini|in|md|yml|npz|json|safetensors|whl|txt)$|^LICENSE$'

def process(root='.'):
    "Run every page's exported cells and make its page; gives the folder"
    os.chdir(root)
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    shutil.rmtree('_proc', ignore_errors=True)
    folder = proc_nbs(n_workers=0, skip_folder_re=SKIP_FOLDERS, skip_file_re=SKIP_FILES)
    shutil.copy('nbdev.yml', folder/'nbdev.yml')
    return folder

if __name__ == '__main__': print(f'{len(list(process(Path(__file__).parent.parent).rglob("*.ipynb")))} pages in _proc')
