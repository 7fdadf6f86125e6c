"Processes that don't wait for torch: a server imports the library once and forks one for each program, which then runs as a shell would run it."
import os
import sys
import tempfile
from configparser import ConfigParser
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

ROOT = Path(__file__).parent.parent
settings = ConfigParser(delimiters=['='])
settings.read(ROOT/'settings.ini')
COMMANDS = dict(line.strip().split('=') for line in settings['DEFAULT']['console_scripts'].splitlines() if line.strip())

server = get_context('forkserver' if 'forkserver' in get_all_start_methods() else 'spawn')      # Windows can't fork
server.set_forkserver_preload(sorted({o.split(':')[0] for o in COMMANDS.values()}))

def _main(program, argv, cwd, env, log):
    "In the new process: streams to files, then the program"
    for number, name in ((1, 'stdout'), (2, 'stderr')): os.dup2(os.open(f'{log}/{name}', os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv, file = argv, f'{log}/{argv[0]}'
    exec(compile(program, file, 'exec'), {'__name__': '__main__', '__file__': file})

class Running:
    "A program in a process of its own, without the shape checks of these tests"
    def __init__(self, program, *args, name='-c', cwd=ROOT, env=None):
        self.log = tempfile.TemporaryDirectory()
        self.process = server.Process(target=_main, args=(program, [name, *map(str, args)], str(cwd), dict(os.environ if env is None else env), self.log.name))
        self.process.start()

    def _said(self, stream):
        path = Path(self.log.name)/stream
        return path.read_text() if path.exists() else ''
    @property
    def stdout(self): return self._said('stdout')
    @property
    def stderr(self): return self._said('stderr')
    @property
    def returncode(self): return self.process.exitcode                                  # None while it runs, -9 after a kill

    def wait(self, seconds=300):
        "Until it has ended, or else it is killed"
        self.process.join(seconds)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(f'still running after {seconds} seconds\n{self.stdout}{self.stderr}')
        return self

    def kill(self):
        self.process.kill()
        self.process.join()

def run(program, *args, **how):
    "Run a program to its end"
    return Running(program, *args, **how).wait()

def command(name, *args, **how):
    "Run a command of the library, as its script does"
    module, function = COMMANDS[name].split(':')
    return run(f'import sys\nfrom {module} import {function}\nsys.exit({function}())', *args, name=name, **how)
