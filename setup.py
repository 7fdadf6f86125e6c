"Everything that pip needs to know is read from settings.ini."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
settings = parser['DEFAULT']
commands = [line.strip() for line in settings['console_scripts'].splitlines() if line.strip()]

def on_the_web(text):
    "Links into the repository, as a package index needs them: pictures raw, the rest as pages"
    text = re.sub(r'(!\[[^]]*\]\()(?!https?:|#)', rf"\1{settings['git_url'].replace('github.com', 'raw.githubusercontent.com')}/{settings['branch']}/", text)
    return re.sub(r'((?<!!)\[[^]]*\]\()(?!https?:|#)', rf"\1{settings['git_url']}/blob/{settings['branch']}/", text)

setup(
    name=settings['lib_name'],
    version=settings['version'],
    description=settings['description'],
    long_description=on_the_web((here/'README.md').read_text(encoding='utf-8')),
    long_description_content_type='text/markdown',
    author=settings['author'],
    author_email=settings['author_email'],
    url=settings['git_url'],
    project_urls={'Documentation': f"{settings['doc_host']}{settings['doc_baseurl']}", 'Source': settings['git_url'],
                  'Issues': f"{settings['git_url']}/issues", 'Changes': f"{settings['git_url']}/blob/{settings['branch']}/CHANGELOG.md"},
    keywords=settings['keywords'],
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Intended Audience :: Developers',
        'Operating System :: OS Independent',
        'Topic :: Multimedia :: Graphics',
        'Topic :: Multimedia :: Video',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Programming Language :: Python :: 3',
    ] + [f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)],
    packages=find_namespace_packages(include=['spice', 'spice.*'], exclude=['*.__pycache__', '*.judge']), # folders of weights count as packages
    package_data={'spice': ['assets/**/*']},
    exclude_package_data={'spice': ['assets/models/people/judge/*']}, # only measures; a clone has it
    include_package_data=True,
    python_requires=f">={settings['min_python']}",
    install_requires=settings['requirements'].split(),
    extras_require={'dev': settings['dev_requirements'].split(), 'parsing': ['transformers']},
    entry_points={'console_scripts': commands, 'nbdev': [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    zip_safe=False,
)
