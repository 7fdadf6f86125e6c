"""Make README.md from index.ipynb: prose as it is, code fenced, printed output below it. `--check` only says whether it is up to date."""
import json, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

def text_of(output):
    "What a cell printed, or the plain form of what it returned"
    data = output.get('text') or output.get('data', {}).get('text/plain', '')
    return ''.join(data).rstrip()

def to_markdown(cell):
    "One cell as Markdown; hidden cells and directives are left out"
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return source
    lines = source.split('\n')
    directives = [line for line in lines if line.startswith('#|')]
    if any('hide' in line or 'include: false' in line for line in directives): return ''
    code = '\n'.join(line for line in lines if not line.startswith('#|')).strip()
    printed = '\n'.join(filter(None, (text_of(o) for o in cell['outputs'] if o['output_type'] != 'error')))
    return f'```python\n{code}\n```' + (f'\n\n```\n{printed}\n```' if printed else '')

def readme():
    "The text of README.md"
    cells = json.loads((ROOT/'index.ipynb').read_text(encoding='utf-8'))['cells']
    note = '<!-- Made from index.ipynb by .ci/readme.py: edit that notebook, not this file -->'
    return '\n\n'.join([note] + [text for cell in cells if (text := to_markdown(cell))]) + '\n'

if __name__ == '__main__':
    path, new = ROOT/'README.md', readme()
    if '--check' in sys.argv:
        if path.read_text(encoding='utf-8') != new: sys.exit('README.md is not what index.ipynb says: run python .ci/readme.py')
    else: path.write_text(new, encoding='utf-8')
