"""Process the notebooks for the website: everything before Quarto itself. Writes `_proc`; then `quarto render _proc` makes the site.

    python .ci/docs.py && quarto render _proc --no-cache
    python .ci/docs.py --check          # also looks at what was made; all that can be said without Quarto
"""
import json, os, shutil, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pages

SKIP_FOLDERS = r'^[_.]|^(spice|tests|benchmarks|scripts|build|dist)$|\.egg-info$'
SKIP_FILES = r'^[_.]|^spice_demo.*\.png$|\.(py|toml|ini|in|md|yml|npz|json|safetensors|whl|txt|cff|bib)$|^LICENSE$'

def nbdev_filter():
    "nbdev's own steps, but with the code of exported cells"
    from execnb.nbio import mk_cell
    from fastcore.basics import AttrDict
    from nbdev.processors import FilterDefaults
    class Filter(FilterDefaults):
        def base_procs(self): return [o for o in super().base_procs() if o.__name__ != 'add_fold']
        def nb_proc(self, nb):
            pages.open_code(nb, lambda source: mk_cell(source, metadata=AttrDict()), pages.number(nb.path_))
            return super().nb_proc(nb)
    return Filter

def title_of(notebook): return ''.join(notebook['cells'][0]['source']).split('\n')[0].lstrip('# ').strip()

def page_map(root):
    "Number and title of every chapter -> its path; where two share a number, the first keeps it"
    found = {}
    for path in sorted(Path(root).glob('nbs/**/*.ipynb')):
        name = path.relative_to(root).as_posix()
        for key in (pages.number(path) or name, title_of(json.loads(path.read_text(encoding='utf-8')))): found.setdefault(key, name)
    return found

def module_of(path):
    "The `default_exp` of a notebook"
    for cell in json.loads(Path(path).read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] == 'code' and ''.join(cell['source']).startswith('#| default_exp'): return ''.join(cell['source']).split()[2]
    return ''

def finish(folder):
    "Every processed page, for readers"
    from nbdev.config import get_config
    from spice._modidx import d
    chapters, entries, known, done = page_map('.'), pages.bibliography('references.bib'), {}, {}
    for path in sorted(folder.rglob('*.ipynb')):
        name = path.relative_to(folder).as_posix()
        notebook = pages.finish(json.loads(path.read_text(encoding='utf-8')), name, chapters, entries, module_of(name), d['syms'])
        done[path] = notebook
        known[(path.parent.relative_to(folder)/pages.front_matter(notebook['cells'][0])['output-file']).as_posix()] = pages.anchors(notebook)
    for path, notebook in done.items():
        pages.drop_dead_links(notebook, known)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    scripts = [line.strip() for line in get_config().d['console_scripts'].split('\n') if line.strip()]
    (folder/'commands.qmd').write_text(pages.commands(scripts), encoding='utf-8')
    (folder/'references.qmd').write_text(pages.references(), encoding='utf-8')
    shutil.copy('spice/assets/app/icon.svg', folder/'nbs'/'images'/'favicon.svg')
    for name in ('nbdev.yml', 'references.bib'): shutil.copy(name, folder/name)

def process(root='.'):
    "Run every page's exported cells and make its page; gives the folder"
    os.chdir(root)
    import nbdev.serve
    from nbdev.quarto import refresh_quarto_yml
    refresh_quarto_yml()
    shutil.rmtree('_proc', ignore_errors=True)
    nbdev.serve.FilterDefaults = nbdev_filter()
    folder = nbdev.serve.proc_nbs(n_workers=0, skip_folder_re=SKIP_FOLDERS, skip_file_re=SKIP_FILES)
    finish(folder)
    return folder

if __name__ == '__main__':
    folder = process(Path(__file__).resolve().parent.parent)
    print(f'{len(list(folder.rglob("*.ipynb")))} pages in _proc')
    if '--check' in sys.argv:
        import check_pages
        complaints = check_pages.check(folder)
        print('\n'.join(complaints) or 'nothing to complain about')
        if complaints: sys.exit(1)
