"The website up to Quarto: one processed page a chapter, each a notebook that Quarto can read, and nothing on it that a reader must not meet."
import ast
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT/'.ci'))
import check_pages
import pages as site

ROOMS = ['method', 'use', 'measure', 'systems', 'people', 'reference']                     # in the order of the sidebar
CHAPTERS = [ROOT/'nbs'/'00_spice.ipynb', *(o for room in ROOMS for o in sorted(ROOT.glob(f'nbs/{room}/*.ipynb'))), ROOT/'nbs'/'glossary.ipynb']
TUTORIALS = sorted(ROOT.glob('nbs/tutorials/*.ipynb'))
MADE = ['commands.qmd', 'references.qmd'] # pages that no notebook is behind

def make_pages(copy):
    "Process a copy of the repository"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', '_*cache*', '_data', '_ckpt', '_docs', '_proc', '__pycache__', 'build', '*.egg-info'))
    out = subprocess.run([sys.executable, '.ci/docs.py'], cwd=copy, capture_output=True, text=True)
    (copy.parent/'said.txt').write_text(f'{out.returncode}\n{out.stdout}{out.stderr}', encoding='utf-8')

@pytest.fixture(scope='session')
def pages(tmp_path_factory, worker_id):
    "All pages, processed once: the first worker does it, the others wait"
    base = tmp_path_factory.getbasetemp() if worker_id == 'master' else tmp_path_factory.getbasetemp().parent
    folder = base/'docs'
    try: folder.mkdir()
    except FileExistsError: pass
    else: make_pages(folder/'spice')
    for _ in range(600):
        if (folder/'said.txt').exists(): break
        time.sleep(1)
    said = (folder/'said.txt').read_text(encoding='utf-8')
    assert said.startswith('0\n'), said[-3000:]
    return folder/'spice'/'_proc'

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']

def contents(section):
    "Every page that a sidebar names, in its order"
    for item in section:
        if isinstance(item, str): yield item
        else: yield from contents(item['contents'])

def test_sidebar_tells_the_story_in_order():
    sidebar = list(contents(yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']))
    tutorials = [f'nbs/tutorials/{o.name}' for o in TUTORIALS]
    assert [o for o in sidebar if o not in MADE + tutorials] == ['index.ipynb'] + [o.relative_to(ROOT).as_posix() for o in CHAPTERS]
    assert sorted(ROOT.glob('nbs/**/*.ipynb')) == sorted([*CHAPTERS, *TUTORIALS])
    assert [o for o in sidebar if o in tutorials] == tutorials
    assert [o for o in sidebar if o in MADE] == MADE

def test_one_page_a_chapter_and_no_stray_file(pages):
    files = {str(o.relative_to(pages)) for o in pages.rglob('*') if o.is_file()}
    wanted = {'index.ipynb', '_quarto.yml', 'nbdev.yml', 'references.bib', 'nbs/images/favicon.svg', *MADE}
    wanted |= {o.relative_to(ROOT).as_posix() for o in [*CHAPTERS, *TUTORIALS, *ROOT.glob('nbs/*.scss'), *ROOT.glob('nbs/images/*')]}
    assert files == wanted

def test_pages_are_notebooks_that_quarto_reads(pages):
    for page in pages.rglob('*.ipynb'):
        notebook = json.loads(page.read_text(encoding='utf-8'))
        assert notebook['nbformat'] == 4
        for cell in notebook['cells']:
            assert cell['cell_type'] in ('markdown', 'code', 'raw')
            assert isinstance(cell['source'], list) and all(isinstance(line, str) for line in cell['source']), f'{page.name}: a cell whose source is no list of lines'
            assert all(line.endswith('\n') for line in cell['source'][:-1])
            if cell['cell_type'] == 'code': assert isinstance(cell['outputs'], list) and 'execution_count' in cell
            for output in cell.get('outputs', []): assert output['output_type'] != 'error', f'{page.name} shows an error'
        assert ''.join(notebook['cells'][0]['source']).startswith('---'), f'{page.name} has no front matter'

@pytest.mark.parametrize('check', check_pages.CHECKS, ids=lambda o: o.__name__)
def test_nothing_to_complain_about(pages, check):
    complaints = list(check(pages, ROOT) if check is check_pages.equations else check(pages))
    assert not complaints, '\n'.join(complaints[:20])

def bad_page(cells, folder, number='10'):
    "A page of a chapter, as a check finds it"
    path = folder/'nbs'/f'{number}_bad.ipynb'
    path.parent.mkdir(parents=True)
    matter = dict(cell_type='raw', metadata={}, source=['---\n', 'title: Bad\n', 'output-file: bad.html\n', '---\n'])
    path.write_text(json.dumps(dict(cells=[matter, *cells], metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
    shutil.copy(ROOT/'references.bib', folder/'references.bib')
    return folder

def code(source, *outputs): return dict(cell_type='code', metadata={}, execution_count=None, source=source.splitlines(True), outputs=list(outputs))
def words(text): return dict(cell_type='markdown', metadata={}, source=text.splitlines(True))
def documented(text): return code('#| echo: false\nshow_doc(f)', dict(output_type='execute_result', data={'text/markdown': text.splitlines(True)}))
PICTURE = dict(output_type='display_data', data={'image/png': ''})

@pytest.mark.parametrize('check, cell', [
    ('wide_code', code('total = ' + ' + '.join(f'number_{i}' for i in range(20)))),
    ('rubbish', documented('### f\n\n```python\ndef f(\n    x:NoneType=None\n):\n```\n')),
    ('rubbish', documented('### f\n\n```python\ndef f(\n    x, # a [`g`](https://somewhere)\n):\n```\n')),
    ('rubbish', code('x = 1  # noqa: F811')),
    ('no_alt_text', code('draw()', PICTURE)),
    ('no_alt_text', words('![](picture.png)')),
    ('unlinked', words('As chapter 07a says.')),
    ('unlinked', words('Ren et al. do it so.')),
    ('unlinked', words('Ren et al. [@nobody1999] do it so.')),
    ('unlinked', words('Write to @somebody.')),
    ('scraps', code('#| slow\nf()')),
    ('dead_links', words('[there](99_nowhere.ipynb)')),
    ('dead_links', words(f'[`f`]({site.SITE}nbs/bad.html#nothing)')),
    ('scraps', code('f()', dict(output_type='stream', name='stderr', text=['careful\n']))),
    ('scraps', words('## [`f`](somewhere)')),
    ('left_numbers', code('table', dict(output_type='execute_result', data={'text/html': '<td>0.10</td>'}))),
    ('left_numbers', code('table', dict(output_type='execute_result', data={'text/markdown': '| row | l1 |\n| --- | --- |\n| a | 0.10 |\n| b | 12 |'}))),
])
def test_checks_find_what_they_look_for(check, cell, tmp_path):
    assert list(getattr(check_pages, check)(bad_page([cell], tmp_path)))

def test_equations_need_their_code(tmp_path):
    folder = bad_page([code('#| exports\ndef term(x):\n    "A loss, Eq. (5)"\n    return x')], tmp_path/'source')
    for fold, complains in (('', False), ('#| code-fold: true\n', True)):
        shutil.rmtree(tmp_path/'page', ignore_errors=True)
        page = bad_page([code(f'{fold}def term(x):\n    "A loss, Eq. (5)"\n    return x')], tmp_path/'page')
        assert bool(list(check_pages.equations(page, folder))) == complains

def test_code_is_folded_into_the_same_program():
    code = 'def f(a):\n    if a: raise ValueError(f"a is {a}, not {a + 1}", ' + ', '.join(f'argument_{i}' for i in range(12)) + ') # why\n    return a'
    folded = site.fold_lines(code)
    assert max(map(len, folded.split('\n'))) <= site.WIDTH and '# why' in folded
    text = 'x = "' + 'long '*40 + '"'
    assert site.fold_lines(text) == text

def test_exported_cells_become_one_function_each():
    cell = SimpleNamespace(cell_type='code', source='#| export\nimport os\n\ndef f(): pass\n\nN = 3\ndef g(): pass\ng.n = N')
    for number, folded in (('10', 0), ('41', 2)):
        notebook = SimpleNamespace(cells=[cell])
        site.open_code(notebook, str, number)
        assert len(notebook.cells) == 2 and sum('code-fold' in o for o in notebook.cells) == folded
        assert notebook.cells[0].endswith('def f(): pass') and notebook.cells[1].endswith('N = 3\ndef g(): pass\ng.n = N')

def test_signatures_are_as_a_reader_would_write_them():
    text = 'def Settings(\n    net:spice.guided.GuidedSettings | dict=<factory>, names:list=<factory>, image:PIL.Image.Image | None=None, x:NoneType=None\n)->None:'
    assert site.tidy_signature(text) == ('class Settings(\n    net:GuidedSettings | dict=GuidedSettings(), names:list=[], image:Image | None=None, x=None\n):')

def test_alt_text_comes_from_the_prose_around():
    prose = '## Fits\nBodies over photos, `theta` in **bold**:\n\n> Departure: not in the paper.\n'
    assert site.alt_text(prose, 'Fits', "show_images(x, ['photo', 'fit'])") == 'Bodies over photos, theta in bold. In the picture: photo, fit.'
    assert site.alt_text('## Fits', 'Fits', "ax.set_xlabel('metres')", 'What they show.') == 'Fits: What they show. In the picture: metres.'

def test_numbers_stand_on_the_right():
    table = '| row | l1 |\n| --- | --- |\n| a | 0.10 [0.1, 0.2] |\n| b | 12 |'
    assert site.align_numbers(table).split('\n')[1] == '|---|---:|'
    assert site.align_numbers('| a | b |\n|---|---|\n| c | d |') == '| a | b |\n|---|---|\n| c | d |'

def test_fences_get_shorter_and_stay_commands():
    long = '```bash\nspice_eval a,b --protocol people-256 --count 200 --real 300 --detector people/judge --json --out a_long_folder > results.json\n```'
    lines = site.tidy_fences(long).split('\n')
    assert max(map(len, lines)) <= site.WIDTH and ' '.join(lines[1:-1]).replace(' \\     ', ' ') == long.split('\n')[1]

def test_commands_page_has_every_command(pages):
    text = (pages/'commands.qmd').read_text(encoding='utf-8')
    names = re.findall(r'(?m)^\s*(?:console_scripts = )?(spice_\w+)=', (ROOT/'settings.ini').read_text())
    assert len(names) > 10 and all(f'## {o}\n' in text and f'usage: {o}' in text for o in names)

def test_chapters_carry_their_numbers_and_can_be_taken_along(pages):
    for path in (pages/'nbs').rglob('*.ipynb'):
        page = cells(path)
        assert str(site.front_matter(page[0])['title']).startswith(site.number(path))
        assert 'Open in Colab' in ''.join(page[1]['source']) and path.name in ''.join(page[1]['source'])

def source_of(module):
    "The file of a module: of `spice.people`, that of its chapter"
    path = ROOT/'spice'/f'{module.replace(".", "/")}.py'
    return path if path.exists() else path.with_suffix('')/path.name

def signature_of(module, name):
    "Names of the arguments of a function or class of the library, from its source; None takes any"
    for node in ast.parse(source_of(module).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in {o.name for o in node.names}: return signature_of(node.module, name)
        if getattr(node, 'name', None) == name:
            if isinstance(node, ast.ClassDef): node = next((o for o in node.body if getattr(o, 'name', '') == '__init__'), None)
            if node is None or node.args.kwarg: return None
            return {o.arg for o in node.args.args + node.args.kwonlyargs}
    raise AssertionError(f'spice.{module} has no {name}')

@pytest.mark.parametrize('path', [ROOT/'index.ipynb', *TUTORIALS, *CHAPTERS], ids=lambda o: o.stem)
def test_examples_in_prose_call_what_is_there(path):
    "Python between prose does not run, but its names and arguments exist"
    for cell in cells(path):
        for example in re.findall(r'(?m)^```python\n(.*?)^```', ''.join(cell['source']), re.S) if cell['cell_type'] == 'markdown' else []:
            tree = ast.parse(example)
            known = {o.name: signature_of(node.module[6:], o.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith('spice.') for o in node.names}
            for call in (o for o in ast.walk(tree) if isinstance(o, ast.Call) and isinstance(o.func, ast.Name)):
                for keyword in call.keywords: assert known.get(call.func.id) is None or keyword.arg in known[call.func.id], f'{call.func.id}({keyword.arg}=)'

def test_legends_stand_beside_the_lines():
    for path in CHAPTERS:
        calls = re.findall(r'\.legend\(.*', '\n'.join(''.join(o['source']) for o in cells(path) if o['cell_type'] == 'code'))
        assert all('bbox_to_anchor' in o or '**beside' in o for o in calls), f'{path.name}: {calls}'

@pytest.mark.parametrize('name', ['20_train', '23_runs', '31_evaluate', '40_infer', '41_video'])
def test_use_comes_first(pages, name):
    headings = [o for cell in cells(next((pages/'nbs').rglob(f'{name}.ipynb'))) if cell['cell_type'] == 'markdown' for o in re.findall(r'(?m)^## .*$', ''.join(cell['source']))]
    assert headings[0] == '## Use'

def test_references_are_cited_and_complete():
    entries = site.bibliography(ROOT/'references.bib')
    assert len(entries) > 25 and all({'author', 'title', 'year'} <= set(o) for o in entries.values())
    assert yaml.safe_load((ROOT/'CITATION.cff').read_text())['references'][0]['year'] == int(entries['sanyal2021']['year'])

def test_exported_functions_are_documented_on_their_page(pages):
    text = ''.join(''.join(o['source']) + str(o.get('outputs', '')) for o in cells(pages/'nbs'/'reference'/'00_core.ipynb'))
    for name in ('read_image', 'get_device', 'cache_folder'): assert name in text

def test_front_page_and_colours_exist():
    quarto = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    assert (ROOT/quarto['website']['image']).exists()
    for themes in quarto['format']['html']['theme'].values():
        for theme in themes: assert theme in ('cosmo', 'darkly') or (ROOT/theme).exists()
    assert 'commonmark' not in quarto['format'] and quarto['format']['html']['code-overflow'] == 'wrap' and quarto['website']['page-navigation']

# ---- in a browser

WIDTHS = {'desk': 900, 'phone': 356} # pixels of the body on screens of 1,440 and 390

MEASURE = """<script>
const out = {};
for (const page of document.querySelectorAll('section')) {
  const cut = [...page.querySelectorAll('pre, p, li, h2, h3, summary')].filter(o => o.scrollWidth > o.clientWidth + 1).map(o => o.textContent.slice(0, 80));
  out[page.id] = {cut, wide: page.scrollWidth - page.clientWidth, column: page.querySelector('.ruler').getBoundingClientRect().width};
}
const said = document.createElement('script');
said.type = 'application/json'; said.id = 'said'; said.textContent = JSON.stringify(out);
document.body.replaceChildren(said);
</script>"""

def styles():
    "The rules of the site's theme, with its colours put in"
    text = ''.join((ROOT/'nbs'/o).read_text() for o in ('spice_light.scss', 'spice.scss'))
    for name, value in re.findall(r'(?m)^(\$[\w-]+): ([^;]+);', text): text = text.replace(f': {name};', f': {value};')
    return 'html { font-size: 17px } pre { font-family: monospace; padding: .4em } ' + text.split('/*-- scss:rules --*/')[1]

def as_html(path, parser):
    "A processed page as plain HTML: prose, code and printed output, without pictures"
    from html import escape
    parts = []
    for cell in cells(path):
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': parts.append(parser.render(source))
        elif cell['cell_type'] == 'code':
            if check_pages.shown(cell): parts.append(f'<div class="sourceCode"><pre><code>{escape(site.directives(source)[1])}</code></pre></div>')
            for output in cell['outputs']:
                data = output.get('data', {})
                if 'text/markdown' in data: parts.append(parser.render(''.join(data['text/markdown'])))
                elif output.get('text') or ('text/plain' in data and not any(o.startswith('image/') for o in data)):
                    parts.append(f'<div class="cell-output"><pre>{escape("".join(output.get("text") or data["text/plain"]))}</pre></div>')
    return '\n'.join(parts)

@pytest.mark.long
@pytest.mark.parametrize('screen', WIDTHS)
def test_nothing_is_cut_or_scrolls_sideways(pages, screen, tmp_path):
    "All pages in Chromium, in the width that a body has on such a screen"
    parser = pytest.importorskip('markdown_it').MarkdownIt().enable('table')
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
    if not program: pytest.skip('no Chromium on this machine')
    width, found = WIDTHS[screen], {}
    ruler = f'<pre style="display: inline-block"><code class="ruler">{"0"*site.WIDTH if screen == "desk" else "0"}</code></pre>'
    body = ''.join(f'<section id="{path.stem}" style="width: {width}px">{ruler}{as_html(path, parser)}</section>' for path in pages.rglob('*.ipynb'))
    (tmp_path/'all.html').write_text(f'<!doctype html><meta charset="utf-8"><style>{styles()}</style><body>{body}{MEASURE}</body>', encoding='utf-8')
    out = subprocess.run([program, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--window-size=1440,900', '--dump-dom',
                          f'--user-data-dir={tmp_path}/profile', f'file://{tmp_path}/all.html'], capture_output=True, text=True, timeout=300)
    found = json.loads(re.search(r'id="said"[^>]*>(.*?)</script>', out.stdout, re.S)[1])
    assert len(found) == len(list(pages.rglob('*.ipynb')))
    assert not {k: v for k, v in found.items() if v['cut'] or v['wide'] > 0}
    assert all(v['column'] < width - 12 for v in found.values())                          # a full line of code fits without wrapping

@pytest.mark.quarto
def test_quarto_renders_without_a_warning(pages):
    "Every page, with references, links and formulas"
    if not shutil.which('quarto'): pytest.skip('no Quarto on this machine')
    out = subprocess.run(['quarto', 'render', str(pages), '--no-cache'], capture_output=True, text=True)
    said = out.stdout + out.stderr
    assert out.returncode == 0 and not re.findall(r'(?m)^.*(?:WARN|ERROR).*$', said), said[-3000:]
    made = list((pages/'_docs').rglob('*.html'))
    assert len(made) == len(list(pages.rglob('*.ipynb'))) + len(MADE)
    assert not [o.name for o in made if re.search(r'<img(?![^>]*alt="[^"]+)', o.read_text(encoding='utf-8'))]
