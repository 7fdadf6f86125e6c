"What a reader of the site must not meet: each check gives one line a complaint. `.ci/docs.py --check` and `tests/test_docs.py` ask them all."
import ast, json, re
from pathlib import Path

import pages as made

def cells(path): return json.loads(Path(path).read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def shown(cell): return cell['cell_type'] == 'code' and '#| echo: false' not in source(cell)
def documented(cell): return [''.join(o['data']['text/markdown']) for o in cell.get('outputs', []) if 'show_doc(' in source(cell) and 'text/markdown' in o.get('data', {})]

def texts(path):
    "Everything on a page that is prose: Markdown cells and what `show_doc` wrote"
    for cell in cells(path):
        if cell['cell_type'] == 'markdown': yield source(cell)
        yield from documented(cell)

def notebooks(folder): return sorted(Path(folder).rglob('*.ipynb'))

def string_rows(code):
    "Rows on which a string stands that nobody can break"
    return {row for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Constant, ast.JoinedStr)) and (isinstance(node, ast.JoinedStr) or isinstance(node.value, str))
            for row in range(node.lineno, node.end_lineno + 1)}

def wide_code(folder):
    "No line of code is wider than the page, but for strings, which the page wraps"
    for path in notebooks(folder):
        for cell in cells(path):
            code = made.directives(source(cell))[1] if shown(cell) else ''
            rows = [(i, line) for i, line in enumerate(code.split('\n'), 1) if len(line) > made.WIDTH]
            if rows:
                strings = string_rows(code)
                yield from (f'{path.name}: {len(line)} columns: {line}' for i, line in rows if i not in strings)
            prose = [source(cell)] if cell['cell_type'] == 'markdown' else []
            yield from (f'{path.name}: {len(line)} columns: {line}' for text in prose for fence in re.findall(r'(?m)^```\w*\n(.*?)^```', text, re.S)
                        for line in fence.split('\n') if len(line) > made.WIDTH)
            for text in documented(cell):
                yield from (f'{path.name}: signature of {len(line)} columns: {line}' for fence in re.findall(r'```python\n(.*?)```', text, re.S)
                            for line in fence.split('\n') if len(line) > made.WIDTH + 10)

def rubbish(folder):
    "Signatures without links, types of None, notes to checkers and factories"
    words = re.compile(r'\]\(|NoneType|# ?noqa|<factory>|\(\s*\*args, \*\*kwargs\s*\)|__main__|Call self as')
    for path in notebooks(folder):
        for cell in cells(path):
            for text in documented(cell):
                code = '\n'.join(re.findall(r'```python\n(.*?)```', text, re.S)) + ('Call self as' if 'Call self as' in text else '')
                if (found := words.search(code)): yield f'{path.name}: {found[0]!r} in {code[:80]!r}'
            if shown(cell) and 'noqa' in source(cell): yield f'{path.name}: a note to a checker'

def no_alt_text(folder):
    "Every picture says in words what it shows"
    for path in notebooks(folder):
        for cell in cells(path):
            if cell['cell_type'] == 'markdown':
                yield from (f'{path.name}: {found}' for found in re.findall(r'!\[\s*\]\([^)]*\)', source(cell)))
            elif made.has_picture(cell):
                alt = re.search(r'(?m)^#\| fig-alt: (.+)$', source(cell))
                if not alt or len(alt[1]) < 15: yield f'{path.name}: a picture without alt text: {source(cell)[:80]!r}'

def unlinked(folder):
    "Every `chapter 07a` is a link, and so is every `et al.`; each reference is in the list"
    entries = made.bibliography(Path(folder)/'references.bib')
    for path in notebooks(folder):
        whole, nocite = '', made.front_matter(cells(path)[0]).get('nocite', '')
        for text in texts(path):
            loose = []
            made.outside(text, lambda o: loose.append(o) or o)
            for part in loose:
                yield from (f'{path.name}: no link: {" ".join(m[0].split())}' for pattern in (made.CHAPTERS, made.AUTHORS) for m in pattern.finditer(part))
                yield from (f'{path.name}: Quarto would cite {o!r}' for o in re.findall(r'(?<![\w@])@(\w+)', part) if o not in entries)
            whole += text
        for key in set(re.findall(r'#ref-(\w+)|\[@(\w+)\]', whole)):
            key = ''.join(key)
            if key not in entries: yield f'{path.name}: {key} is not in references.bib'
            elif f'@{key}' not in nocite and f'[@{key}]' not in whole: yield f'{path.name}: {key} is cited but not listed'

def dead_links(folder):
    "Links between pages lead to pages and to headings that are there"
    folder = Path(folder)
    known = {}
    for path in notebooks(folder):
        notebook = json.loads(path.read_text(encoding='utf-8'))
        known[(path.parent.relative_to(folder)/made.front_matter(notebook['cells'][0])['output-file']).as_posix()] = made.anchors(notebook)
    for path in notebooks(folder):
        for text in texts(path):
            for target in re.findall(r'\]\(([^)\s]+)', re.sub(r'`[^`]*`|\$[^$]*\$', '', text)):
                if target.startswith(made.SITE):
                    page, _, anchor = target[len(made.SITE):].partition('#')
                    if page not in known or (anchor and anchor not in known[page]): yield f'{path.name}: {target}'
                elif not re.match(r'https?://|mailto:|#', target) and not (path.parent/target.split('#')[0]).exists(): yield f'{path.name}: {target}'

def equations(folder, root='.'):
    "The method's chapters print, unfolded, the code of every function that an equation names"
    for path in notebooks(folder):
        if made.number(path) not in made.METHOD: continue
        code = '\n'.join(source(cell) for cell in cells(path) if shown(cell) and '#| code-fold' not in source(cell))
        whole = '\n'.join(source(cell) for cell in cells(Path(root)/path.relative_to(folder)) if re.search(r'(?m)^#\| exports?$', source(cell)))
        for node in ast.walk(ast.parse(whole)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and 'Eq. (' in (ast.get_docstring(node) or '') and not re.search(rf'(?:def|class) {node.name}\b', code):
                yield f'{path.name}: the code of {node.name} is not shown'
        if not re.search(r'(?m)^(def|class|@)', code): yield f'{path.name}: no code is shown'

def scraps(folder):
    "Nothing that only its writers need: warnings, cells that write the pictures of other pages, headings that are links"
    for path in notebooks(folder):
        for cell in cells(path):
            if any(o.get('name') == 'stderr' for o in cell.get('outputs', [])): yield f'{path.name}: a warning is shown'
            if shown(cell) and made.maintenance(source(cell)): yield f'{path.name}: {source(cell)[:60]!r}'
            if cell['cell_type'] == 'code':
                yield from (f'{path.name}: Quarto cannot read {o!r}' for o in made.directives(source(cell))[0] if not re.match(r'#\| [\w-]+: \S', o))
            if cell['cell_type'] == 'markdown': yield from (f'{path.name}: a heading is a link: {o}' for o in re.findall(r'(?m)^#+ .*\]\(.*$', source(cell)))

def left_numbers(folder):
    "Numbers in tables stand on the right"
    for path in notebooks(folder):
        for cell in cells(path):
            for data in (o.get('data', {}) for o in cell.get('outputs', [])):
                if (found := made.LEFT_NUMBER.search(''.join(data.get('text/html', '')))): yield f'{path.name}: a number on the left: {found[0]}'
                text = ''.join(data.get('text/markdown', ''))
                if made.align_numbers(text) != text: yield f'{path.name}: numbers on the left: {text[:80]!r}'

CHECKS = (wide_code, rubbish, no_alt_text, unlinked, dead_links, equations, scraps, left_numbers)

def check(folder, root='.'):
    "All complaints"
    return [f'{one.__name__}: {line}' for one in CHECKS for line in (one(folder, root) if one is equations else one(folder))]
