"""What every benchmark of this folder shares: its arguments, the clock, the memory gauge and the table.

    from common import Bench
    bench = Bench('What it costs to pose the body')       # reads --quick, --device, --json FILE
    for batch in bench.pick([1, 8, 64], quick=[1, 8]):
        bench.time('pose', batch=batch, f=lambda: body(rotmats[:batch], betas[:batch]))
    bench.save()

One row is `name, size, batch, device, value, unit`, with unit `ms`, `img/s`, `fits/s` or `MB`. A time is the median of the calls after a
warm-up, the device synchronised before the clock is read. Memory is what the call needs at its worst moment above what was held before it:
on CUDA by the allocator's own count; on Linux CPUs by the kernel's high-water mark of resident memory, reset before the call, after the
process has given back what it keeps for reuse. Elsewhere there is no row for memory.
"""
import argparse, ctypes, json, platform, statistics, sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.core import get_device, writing

UNITS = ('ms', 'img/s', 'fits/s', 'MB')

def synchronize(device):
    "Wait until the device has done what it was asked"
    if device.type == 'cuda': torch.cuda.synchronize(device)
    elif device.type == 'mps': torch.mps.synchronize()

def median_ms(f, device, seconds=2., least=3, most=200):
    "Median milliseconds of a call of `f`: warmed up, then for about `seconds`, at least `least` and at most `most` calls"
    device, times = torch.device(device), []
    start = time.perf_counter()
    f(); synchronize(device)
    once = time.perf_counter() - start
    if once < seconds/4: f(); synchronize(device)
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        start = time.perf_counter()
        f(); synchronize(device)
        times.append((time.perf_counter() - start)*1000)
    return statistics.median(times)

def _resident():
    "High-water mark and present size of resident memory, in bytes"
    lines = dict(o.split(':', 1) for o in Path('/proc/self/status').read_text().splitlines() if ':' in o)
    return tuple(int(lines[k].split()[0])*1024 for k in ('VmHWM', 'VmRSS'))

def peak_mb(f, device):
    "Megabytes (10^6 bytes) that a call of `f` holds at its worst moment above what was held before; None where that can't be read"
    device = torch.device(device)
    f(); synchronize(device)
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        f(); synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before)/1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)                   # glibc: hand freed memory back, or the call would reuse it unseen
        Path('/proc/self/clear_refs').write_text('5')      # Linux: the high-water mark starts anew
        before = _resident()[1]
    except (OSError, AttributeError): return None
    f()
    return max(0, _resident()[0] - before)/1e6

class Bench:
    "One benchmark script: its arguments, and the table it prints and saves"
    def __init__(self, description, argv=None):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument('--quick', action='store_true', help='fewer sizes, under a minute on two cores')
        parser.add_argument('--device', help="'cpu', 'cuda', 'mps'; the fastest there is when left out")
        parser.add_argument('--json', metavar='FILE', help='also write the rows to this file')
        self.args = parser.parse_args(argv)
        self.quick, self.device, self.rows = self.args.quick, get_device(self.args.device), []
        print(f'{description}\n{self.machine}\n{"name":<36}{"size":>10}{"batch":>7}  {"device":<8}{"value":>12} unit', flush=True)

    @property
    def machine(self):
        "The machine in words"
        name = torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else platform.processor() or platform.machine()
        return f'{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}'

    def pick(self, full, quick):
        "`quick` when asked to be quick, else `full`"
        return quick if self.quick else full

    def row(self, name, value, unit, size='', batch=1):
        "Add a row and print it"
        assert unit in UNITS, unit
        self.rows.append(dict(name=name, size=str(size), batch=batch, device=str(self.device), value=float(f'{value:.5g}'), unit=unit))
        print(f'{name:<36}{size!s:>10}{batch:>7}  {self.device!s:<8}{value:>12.3f} {unit}', flush=True)
        return value

    def time(self, name, f, size='', batch=1, seconds=2., per_image=False, **kwargs):
        "Time `f` and add a row in ms for the whole call, or for one image of its batch"
        ms = median_ms(f, self.device, seconds/4 if self.quick else seconds, **kwargs)
        return self.row(name, ms/batch if per_image else ms, 'ms', size, batch)

    def rate(self, name, f, size='', batch=1, seconds=2., unit='img/s', **kwargs):
        "Time `f` and add a row in images (or what `unit` says) a second"
        return self.row(name, batch/median_ms(f, self.device, seconds/4 if self.quick else seconds, **kwargs)*1000, unit, size, batch)

    def memory(self, name, f, size='', batch=1):
        "Add a row with the peak memory of `f`, where it can be measured"
        mb = peak_mb(f, self.device)
        return None if mb is None else self.row(name, mb, 'MB', size, batch)

    def save(self):
        "Write the rows to the file that --json named"
        if self.args.json:
            with writing(self.args.json) as path: path.write_text(json.dumps(self.rows, indent=1))
