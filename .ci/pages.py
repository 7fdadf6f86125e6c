"""What pages have that notebooks do not: the code of exported cells, links between chapters, references, clean signatures, alt text.

Before nbdev: `open_code`. After nbdev: `finish`. `.ci/docs.py` calls both; `tests/test_docs.py` looks at what they made.
"""
import ast, io, json, re, textwrap, tokenize
from pathlib import Path

import yaml

WIDTH = 110                                                  # columns of code that a page shows without wrapping, at 1,440 pixels
METHOD = {'07c', '08', '10', '10a', '11', '12', '13', '14', '15', '15a', '15b', '20'}   # chapters that print their code in full
SITE = 'https://spice-authors.github.io/spice/'
REPO = 'https://github.com/spice-authors/spice'

def number(path):
    "07a for nbs/reference/07a_loaders.ipynb; '' for pages without a number"
    found = re.match(r'(\d\d[a-z]?)_', Path(path).stem)
    return found[1] if found else ''

# ---- the code of exported cells

FOLDED = '#| code-fold: true\n#| code-summary: "{}"\n'

def pieces(code):
    "A cell's code, cut behind each function and class that others may call: a heading of its own for each. What stands before one belongs to it"
    lines, body = code.split('\n'), ast.parse(code).body
    cuts = [node.end_lineno for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and public(node.name)]
    cuts = [0, *cuts[:-1], len(lines)]
    return [text for a, b in zip(cuts, cuts[1:]) if (text := '\n'.join(lines[a:b]).strip('\n'))]

def public(name): return name[0] != '_' or name[:2] == '__'

def defines(code, name):
    "Whether code has a function or class of that name"
    try: return any(getattr(node, 'name', None) == name for node in ast.walk(ast.parse(directives(code)[1])))
    except SyntaxError: return False

def only_imports(code): return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(code).body)

def directives(source):
    "The lines `#| ...` that a cell begins with, and the rest"
    lines = source.split('\n')
    n = next((i for i, line in enumerate(lines) if not line.startswith('#|')), len(lines))
    return lines[:n], '\n'.join(lines[n:])

def open_code(notebook, make_cell, number=''):
    "Exported cells become `exports`, one function each; outside the method's chapters what was `export` is folded"
    cells = []
    for cell in notebook.cells:
        first, code = directives(cell.source) if cell.cell_type == 'code' else ([], '')
        kind = next((word for line in first if (word := line[2:].strip().split(' ')[0]) in ('export', 'exports')), None)
        if not kind or '#| hide' in first or not code.strip():
            cells.append(cell)
            continue
        rest = ''.join(f'{line}\n' for line in first if line[2:].strip().split(' ')[0] not in ('export', 'exports'))
        for piece in pieces(code):
            fold = 'Imports' if only_imports(piece) else '' if kind == 'exports' or number in METHOD else 'Show the code'
            cells.append(make_cell(f'#| exports\n{rest}{FOLDED.format(fold) if fold else ""}{piece}'))
    notebook.cells = cells

# ---- lines no longer than a page is wide

def tokens_of(code):
    "Tokens with how deep in brackets they stand; none of the parts of f-strings"
    depth, inside, opened = 0, 0, []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        name = tokenize.tok_name[token.type]
        if name == 'FSTRING_START': inside += 1
        if not inside and token.type == tokenize.OP and token.string in ')]}': depth, opened = depth - 1, opened[:-1]
        if not inside: yield token, depth, opened[-1] if opened else None
        if not inside and token.type == tokenize.OP and token.string in '([{': depth, opened = depth + 1, opened + [token.start]
        if name == 'FSTRING_END': inside -= 1

ORDER = {word: i for i, words in enumerate((',', 'if else for and or', '+ - | == & < >', '* @ /')) for word in words.split(' ')}

def break_line(code, row, width):
    "Row `row` (from 1) of the code in two, at the outermost comma or operator that leaves the first part within the width; None if there is none"
    before, line, after = (lines := code.split('\n'))[:row - 1], lines[row - 1], lines[row:]
    indent, best = len(line) - len(line.lstrip()), None
    for node in ast.walk(ast.parse(code)):                                          # `if ...: ...` on one row becomes two
        body = getattr(node, 'body', None)
        if not isinstance(body, list) or not body or body[0].lineno != row: continue
        place = len(line.encode()[:body[0].col_offset].decode())
        if line[:place].rstrip().endswith(':') and line[:place].strip() != ':':
            return '\n'.join(before + [line[:place].rstrip(), ' '*(node.col_offset + 4) + line[place:]] + after)
    for token, depth, bracket in tokens_of(code):
        if token.start[0] != row or token.end[0] != row: continue
        if token.type == tokenize.COMMENT:                                          # a comment goes above its line
            above = textwrap.wrap(token.string.lstrip('# '), width - indent - 2)
            return '\n'.join(before + [' '*indent + '# ' + o for o in above] + ([code_left] if (code_left := line[:token.start[1]].rstrip()) else []) + after)
        if token.string not in ORDER or (not depth and (token.string == 'for' or re.match(r'\s*(if|elif|else|for|while|with|lambda)\b', line))): continue
        place = token.end[1] if token.string == ',' else token.start[1]
        small = bracket and bracket[0] == row and place - bracket[1] < 20               # no break within `isinstance(x, Tensor)`
        order = (ORDER[token.string] > 1, depth + 2*bool(small) if depth else 1.5, ORDER[token.string], -place)
        if indent + 12 < place <= width - 2 and line[place:].strip() and (best is None or order < best[0]): best = order, place, depth, bracket
    if best is None: return '\n'.join(before + [' '*40 + line.lstrip()] + after) if indent > 40 else None     # too deep: start further left
    _, place, depth, bracket = best
    column = bracket[1] + 1 if depth and bracket[1] < 64 else indent + 4*(not depth or bracket[0] == row)
    return '\n'.join(before + [line[:place].rstrip() + (' ' + chr(92) if not depth else ''), ' '*column + line[place:].lstrip()] + after)

def fold_lines(code, width=WIDTH):
    "The same program in shorter lines. Where only a string is too long, the line stays"
    done, row = code, 1
    try:
        while row <= done.count('\n') + 1:
            if len(done.split('\n')[row - 1]) <= width or (shorter := break_line(done, row, width)) is None: row += 1
            else: done = shorter
        same = ast.dump(ast.parse(done)) == ast.dump(ast.parse(code))
    except (SyntaxError, tokenize.TokenError, IndentationError): return code
    return done if same else code

def tidy_code(source):
    "A code cell for a page: no notes to checkers, no lines over the width"
    first, code = directives(source)
    code = re.sub(r'(?m)\s*#\s*noqa(?::\s*[A-Z]\d+(?:,\s*[A-Z]\d+)*)?(?:\s*-\s*(?=\S))?(.*)$', lambda m: f'  # {m[1].strip()}' if m[1].strip() else '', code)
    return '\n'.join([*first, fold_lines(code)])

def shell_lines(line, width=WIDTH):
    "One command in lines that a shell reads as one"
    if len(line) <= width: return [line]
    places = [found.start() for found in re.finditer(r' (?=&& |--|> )', line) if 20 < found.start() <= width - 2]
    return [line[:places[-1]] + ' ' + chr(92), *shell_lines('    ' + line[places[-1] + 1:], width)] if places else [line]

def tidy_fence(match):
    "Code between prose: comments closer to their lines, then above them, then shorter lines"
    language, lines = match[1], match[2].rstrip('\n').split('\n')
    split = [re.match(r'(.*?\S)(\s+)(# .*)$', line) for line in lines]
    gaps = [len(o[2]) for o in split if o]
    over = max(map(len, lines)) - WIDTH
    if over > 0 and gaps and min(gaps) > 2:
        less = min(over, min(gaps) - 2)
        lines = [o[1] + o[2][less:] + o[3] if o else line for o, line in zip(split, lines)]
    above = any(len(line) > WIDTH and ' # ' in line for line in lines)          # one comment above its line: then all of them
    out = []
    for line in lines:
        found = re.match(r'(.*?\S)\s+(# .*)$', line) if above else None
        if found: out += [found[2], *([found[1]] if language == 'python' else shell_lines(found[1]))]
        else: out += [line] if language == 'python' else shell_lines(line)
    code = '\n'.join(out)
    return f'```{language}\n{fold_lines(code) if language == "python" else code}\n```'

def tidy_fences(text): return re.sub(r'(?ms)^```(python|bash|sh)\n(.*?)^```', tidy_fence, text)

# ---- signatures

DEFAULTS = {'dict': '{}', 'list': '[]', 'tuple': '()', 'set': 'set()'}

def made(match):
    "What a field's factory makes, as it would be written"
    kind = match[1].split('|')[0].strip()
    return f'{match[1]}={DEFAULTS.get(kind, kind + "()")}'

def tidy_signature(text):
    "A signature as a reader would write it"
    text = re.sub(r'\[(`[^`\n]*`)\]\([^)\n]*\)', r'\1', text)                          # no links in code
    text = re.sub(r'\s*# noqa(?:: [A-Z]\d+)?(?: - (?=\S))?(.*)', lambda m: f' # {m[1].strip()}' if m[1].strip() else '', text)
    text = re.sub(r':NoneType=None', '=None', text)
    text = re.sub(r'(?<![\w.])(?:[A-Za-z_]\w*\.)+([A-Z]\w*)', r'\1', text)               # PIL.Image.Image, __main__.Settings
    text = re.sub(r'(?<=:)([\w| ]+)=<factory>', made, text)
    text = re.sub(r'\)->None:', '):', text)
    text = re.sub(r'^def (?=[A-Z]\w*\()', 'class ', text)
    lines = []
    for line in text.split('\n'):
        code, mark, comment = line.partition(' # ')
        if len(code) > WIDTH: code = re.sub(r'=\((.{30}[^,]*,).{20,}\)', r'=(\1 ...)', code)
        line = code + mark + comment
        if len(line) <= WIDTH or not mark: lines.append(line)
        else: lines += textwrap.wrap(comment, WIDTH, initial_indent=f'{code} # ', subsequent_indent=' '*min(len(code) + 1, 40) + '# ', break_long_words=False)
    return '\n'.join(lines)

def tidy_doc(text, code_follows=False):
    "What `show_doc` wrote: heading, signature, one line. Where the code itself follows, it has both"
    text = re.sub(r'\n*\*?Call self as a function\.\*?', '', text)
    fence = re.search(r'```python\n(.*?)\n```\n*', text, re.S)
    if fence:
        bare = re.match(r'(?:def|class) \w+\(\s*\*args, \*\*kwargs\s*\)', fence[1])
        signature = '' if bare else f'```python\n{tidy_signature(fence[1])}\n```\n\n'
        text = text[:fence.start()] + ('' if code_follows else signature + text[fence.end():])
    return text.rstrip() + '\n'

# ---- links in prose

PROTECTED = re.compile(r'```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|^#+ .*?$', re.S | re.M)
CHAPTERS = re.compile(r'\b([Cc]hapters?\s+)(\d\d[a-z]?\b(?:(?:,\s*(?:and\s+)?|\s+(?:and|to|or)\s+)\d\d[a-z]?\b)*)')
NAMED = re.compile(r'\b([Cc]hapter\s+)\*([^*\n]+)\*')
AUTHORS = re.compile(r"\b([A-Z][\w-]+) et al\.")

def outside(text, change):
    "`change` what is neither code, formula, link nor heading"
    done, place = [], 0
    for found in PROTECTED.finditer(text):
        done += [change(text[place:found.start()]), found[0]]
        place = found.end()
    return ''.join([*done, change(text[place:])])

def relative(page, target):
    "A link from one page to another, as Quarto wants it"
    up = '../'*(len(Path(page).parts) - 1)
    return f'{up}{target}'

def link_chapters(text, page, pages):
    "`chapter 07a` and `chapter *Files*` as links; `pages` maps numbers and titles to paths"
    def one(match):
        first = True
        def link(found):
            nonlocal first
            if found[0] not in pages: raise ValueError(f'{page} speaks of chapter {found[0]}, which is not there')
            words, first = (match[1] if first else '') + found[0], False
            return f'[{words}]({relative(page, pages[found[0]])})'
        return re.sub(r'\d\d[a-z]?\b', link, match[2])
    text = CHAPTERS.sub(one, text)
    return NAMED.sub(lambda m: f'[{m[1]}*{m[2]}*]({relative(page, pages[m[2]])})' if m[2] in pages else m[0], text)

def bibliography(path):
    "{key: {author, year, title, ...}} of a BibTeX file with one field a line"
    entries = {}
    for kind, key, body in re.findall(r'@(\w+)\{(\w+),\n(.*?)\n\}', Path(path).read_text(encoding='utf-8'), re.S):
        entries[key] = {'kind': kind} | dict(re.findall(r'(?m)^\s*(\w+)\s*=\s*\{(.*?)\},?$', body))
    return entries

def surname(entry):
    "Of the first author, without braces"
    return re.sub(r'[{}]', '', entry['author'].split(' and ')[0].split(',')[0])

def names_of(entries):
    "First author -> key. `cited_as` of an entry, if there is one, replaces the author"
    return {entry.get('cited_as', surname(entry)): key for key, entry in entries.items()}

def terms_of(entries):
    "Name of a thing -> key, as the entries' `keywords` say"
    return {term.strip(): key for key, entry in entries.items() for term in entry.get('keywords', '').split(',') if term.strip()}

def link_authors(text, entries, cited):
    "`Ren et al.` as a link to the list of references at the end of the page; `cited` collects keys"
    names = names_of(entries)
    def one(match):
        key = names.get(match[1])
        if key is None: return match[0]
        cited.add(key)
        return f'[{match[0]}](#ref-{key} "{plain(entries[key]["title"])}, {entries[key]["year"]}")'
    return AUTHORS.sub(one, text)

def link_terms(text, entries, cited):
    "The first mention of a named thing, such as SMPLify, carries its reference"
    for term, key in terms_of(entries).items():
        found = re.search(rf"(?<![\w`\[/.-]){re.escape(term)}(?![\w\]/-]|'s\b| \()", text)
        if key in cited or not found: continue
        cited.add(key)
        text = f'{text[:found.end()]} [@{key}]{text[found.end():]}'
    return text

# ---- alt text

def plain(text):
    "Markdown as words"
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)(?:\{[^}]*\})?', r'\1', text)
    text = re.sub(r'\[-?@\w+\]', '', text)
    return re.sub(r'\s+', ' ', re.sub(r'[*`{}"\\]|\$', '', text)).strip()

LABELLED = ('set_title', 'set_xlabel', 'set_ylabel', 'suptitle', 'title', 'xlabel', 'ylabel')

def literal_titles(source):
    "Titles of pictures and labels of axes: lists of strings that a cell gives to a function, and what it names"
    try: tree = ast.parse(directives(source)[1])
    except SyntaxError: return []
    lists = [node for call in ast.walk(tree) if isinstance(call, ast.Call) for node in call.args if isinstance(node, (ast.List, ast.BinOp))]
    named = [node for call in ast.walk(tree) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LABELLED for node in call.args]
    named += [o.value for call in ast.walk(tree) if isinstance(call, ast.Call) for o in call.keywords if o.arg in ('label', 'title', 'xlabel', 'ylabel')]
    words = [o.value for node in lists + named for o in ast.walk(node) if isinstance(o, ast.Constant) and isinstance(o.value, str) and re.search(r'\w\w', o.value)]
    return list(dict.fromkeys(words))

def alt_text(prose, heading, source, after=''):
    "What a picture shows, from the paragraph above it, or else the heading and the paragraph below it, and the titles in it"
    prose = re.sub(r'(?m)^#+ .*$', '', prose)
    paragraphs = [o for o in re.split(r'\n\s*\n', prose) if o.strip() and not re.match(r'\s*(>|\||```|\$\$|:::|<)', o)]
    below = [o for o in re.split(r'\n\s*\n', after) if o.strip() and not re.match(r'\s*(\||```|\$\$|:::|<)', o)]
    words = plain(paragraphs[-1]) if paragraphs else f'{plain(heading)}: {plain(below[0]).lstrip("# ")}' if below else plain(heading)
    if len(words) > 240: words = words[:240].rsplit('. ', 1)[0] if '. ' in words[80:240] else words[:240].rsplit(' ', 1)[0] + ' ...'
    titles = literal_titles(source)
    words = words.rstrip('.:') + ('. In the picture: ' + ', '.join(titles[:8]) if titles else '')
    return (words or 'Picture') + '.'

def has_picture(cell): return sum(any(o.startswith('image/') for o in output.get('data', {})) for output in cell.get('outputs', []))

# ---- tables

def align_numbers(text):
    "Columns of numbers in tables stand on the right, digit under digit"
    rows, lines = [], text.split('\n')
    for i, line in enumerate([*lines, '']):
        if line.lstrip().startswith('|'): rows.append(i)
        elif rows:
            table = [[o.strip() for o in re.split(r'(?<!\\)\|', lines[k].strip().strip('|'))] for k in rows]
            if len(table) > 2 and all(re.fullmatch(r':?-+:?', o) for o in table[1]) and len({len(o) for o in table}) == 1:
                numbers = [all(re.match(r'[\s*]*[-+~<]?\d[\d,.]*|[-–]?$', o[k]) for o in table[2:]) and any(o[k] for o in table[2:]) for k in range(len(table[0]))]
                lines[rows[1]] = '|' + '|'.join('---:' if is_number else o for is_number, o in zip(numbers, table[1])) + '|'
            rows = []
    return '\n'.join(lines)

LEFT_NUMBER = re.compile(r"<td>(\s*[-+]?(?:\d[\d,.]*(?:e[-+]?\d+)?%?|inf|nan|NaN)\s*)</td>")

def align_cells(html):
    "Numbers in tables of pandas stand on the right, too"
    return LEFT_NUMBER.sub(r'<td style="text-align: right">\1</td>', html)

# ---- a page

def front_matter(cell): return yaml.safe_load(''.join(cell['source']).split('---')[1])

def tools(page):
    "Links above a page: try it, take it"
    return (f'::: {{.page-tools}}\n[Open in Colab](https://colab.research.google.com/github/spice-authors/spice/blob/main/{page}) · '
            f'[Download the notebook](https://raw.githubusercontent.com/spice-authors/spice/main/{page})'
            f' · in Colab, run `%pip install -q git+{REPO}` first\n:::')

def maintenance(source):
    "A cell that does nothing but write a picture of this or another page"
    return re.search(r"save(?:_image)?\([^\n]*'(?:\.\./)?images/", source) and len(directives(source)[1].strip().split('\n')) < 4

def prose(text, page, pages, entries, cited):
    "A Markdown cell for a page"
    text = re.sub(r'(?m)^(#+ .*)$', lambda m: re.sub(r'\[(`[^`]*`)\]\([^)]*\)', r'\1', m[1]), text)          # a heading is no link
    return outside(tidy_fences(text), lambda o: link_authors(link_chapters(o, page, pages), entries, cited))

def own_links(text, module, syms):
    "A name that several modules have means this page's own; a name without a heading is no link"
    def one(match):
        name = match[1]
        own = syms.get(f'spice.{module}', {}).get(f'spice.{module}.{name}')
        return f'[`{name}`]({SITE}{own[0]})' if own else match[0]
    return re.sub(r'\[`([\w.]+)`\]\((' + re.escape(SITE) + r'[^)]*)\)', one, text)

def own_source(text, module, root):
    "The link to the source of what this page documents, also where another module has the same name"
    link, heading = re.search(r'\[source\]\(([^)#]*)(#L\d+)?\)', text), re.search(r'(?m)^### (\S+)', text)
    name = f'spice/{module.replace(".", "/")}.py'
    if not link or not heading or link[1].endswith(f'/{name}') or not module: return text
    path = Path(root)/name
    if not path.exists(): return text
    documented = heading[1].split('.')[-1]
    rows = [i for i, line in enumerate(path.read_text(encoding='utf-8').split('\n'), 1) if re.match(rf'(?:class|def) {re.escape(documented)}\b', line)]
    return text.replace(link[0], f'[source]({REPO}/blob/main/{name}{f"#L{rows[0]}" if rows else ""})') if rows else text

def lines(text): return text.splitlines(True)

def finish(notebook, page, pages, entries, module='', syms={}, root='.'):
    "A page as nbdev left it, in place: for Quarto, and for readers"
    cells, cited, above, heading = [], set(), '', ''
    for i, cell in enumerate(notebook['cells']):
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown' and not source.startswith('<!--'):
            source = align_numbers(prose(own_links(source, module, syms), page, pages, entries, cited))
            above, heading = source, (re.findall(r'(?m)^#+ (.*)$', source) or [heading])[-1]
        if cell['cell_type'] == 'code':
            cell['outputs'] = [o for o in cell['outputs'] if o.get('name') != 'stderr']
            if maintenance(source): continue
            if 'show_doc(' in source and '#| echo: false' in source:
                after = next((''.join(o['source']) for o in notebook['cells'][i + 1:i + 2] if o['cell_type'] == 'code'), '')
                name = source[source.index('show_doc(') + 9:].split(')')[0].split('.')[-1]
                shown = 'show_doc(' not in after and '#| code-fold' not in after and defines(after, name)
                for output in cell['outputs']:
                    if 'text/markdown' in output.get('data', {}):
                        text = tidy_doc(own_source(own_links(''.join(output['data']['text/markdown']), module, syms), module, root), shown)
                        output['data'] = {'text/markdown': lines(outside(text, lambda o: link_authors(link_chapters(o, page, pages), entries, cited)))}
            else:
                source = tidy_code(source)
                for output in cell['outputs']:
                    if 'text/markdown' in output.get('data', {}): output['data']['text/markdown'] = lines(align_numbers(''.join(output['data']['text/markdown'])))
                    if 'text/html' in output.get('data', {}): output['data']['text/html'] = lines(align_cells(''.join(output['data']['text/html'])))
            n = has_picture(cell)
            if n and 'fig-alt' not in source:
                after = next((''.join(o['source']) for o in notebook['cells'][i + 1:] if o['cell_type'] == 'markdown'), '')
                alt = alt_text(above, heading, source, after)
                if len(alt) < 25: alt = f'{front_matter(notebook["cells"][0])["title"]}: {alt}'
                source = f'#| fig-alt: {json.dumps(alt if n == 1 else [f"{alt[:-1]} ({k + 1} of {n})." for k in range(n)], ensure_ascii=False)}\n{source}'
        cell['source'] = lines(source)
        cells.append(cell)
    for cell in cells:                                         # named things at last: their authors may be cited by name
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown' and not re.search(r'(?m)^\||^:::|^<!--', text):
            cell['source'] = lines(outside(text, lambda o: link_terms(o, entries, cited)))
    matter = front_matter(cells[0])
    if number(page) and not str(matter['title']).startswith(number(page)): matter['title'] = f'{number(page)} {matter["title"]}'
    if cited: matter['nocite'] = ', '.join(f'@{key}' for key in sorted(cited))
    cells[0]['source'] = lines(f'---\n{yaml.safe_dump(matter, allow_unicode=True, width=1000)}---\n')
    if page != 'index.ipynb':
        cells.insert(1, {'cell_type': 'markdown', 'id': 'tools', 'metadata': {}, 'source': lines(tools(page))})
    notebook['cells'] = cells
    return notebook

# ---- the whole site

def anchors(notebook):
    "The headings of a page, as links name them"
    texts = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'markdown']
    texts += [''.join(o.get('data', {}).get('text/markdown', '')) for cell in notebook['cells'] for o in cell.get('outputs', [])]
    return {re.sub(r'[^\w.\- ]', '', o).strip().lower().replace(' ', '-') for text in texts for o in re.findall(r'(?m)^#+ (.*)$', text)}

def drop_dead_links(notebook, known):
    "A name whose heading is on no page stays a name; `known` maps addresses to anchors"
    def one(match):
        page, _, anchor = match[2].partition('#')
        return match[0] if page in known and (not anchor or anchor in known[page]) else f'`{match[1]}`'
    def change(text): return re.sub(r'\[`([^`]*)`\]\(' + re.escape(SITE) + r'([^)]*)\)', one, text)
    for cell in notebook['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = lines(change(''.join(cell['source'])))
        for output in cell.get('outputs', []):
            if 'text/markdown' in output.get('data', {}): output['data']['text/markdown'] = lines(change(''.join(output['data']['text/markdown'])))

def commands(scripts):
    "The page of all commands, from their own help; `scripts` are lines such as `spice_repose=spice.infer:spice_repose`"
    from importlib import import_module
    from fastcore.script import anno_parser
    text = '---\ntitle: All commands\ndescription: "What each command takes, as `--help` prints it."\n---\n'
    for line in sorted(scripts):
        name, _, place = line.partition('=')
        module, _, function = place.partition(':')
        command = getattr(import_module(module), function)
        parser = anno_parser(getattr(command, '__wrapped__', command), prog=name)
        text += f'\n## {name}\n\n```text\n{help_text(parser)}```\n'
    return text

def help_text(parser):
    "`--help` for a page of fixed width, without defaults that are a matter of the machine"
    import argparse
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=WIDTH - 10, max_help_position=30)
    return parser.format_help()

def references():
    "The page of all papers, and how to cite"
    return f"""---
title: References
description: "The papers that this book follows, measures by, or takes a part from; and how to cite."
nocite: '@*'
---

## How to cite

If this library served your work, cite the paper of the method that you used, and the library:

```bibtex
@software{{spice_library,
  author = {{{{The spice authors}}}},
  title = {{spice: reposing people in photos, learned from single photos}},
  year = {{2026}},
  url = {{{REPO}}}
}}
```

[CITATION.cff]({REPO}/blob/main/CITATION.cff) says the same to programs. The method is SPICE [@sanyal2021].

## Papers

::: {{#refs}}
:::
"""
