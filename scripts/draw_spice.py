"""Draw the whole of SPICE as `nbs/images/spice.svg`: pictures, networks, losses, and the cycle.

    python scripts/draw_spice.py
    python scripts/draw_spice.py --out FILE.svg
"""
import argparse, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from spice.keypoints import COLORS, LIMBS
from spice.sample import load_sample

DRAWN = Path(__file__).resolve().parent.parent/'nbs'/'images'/'spice.svg'
SKIN, HAIR, SHIRT, TROUSERS, SHOES = '#b98a66', '#33241d', '#1f4fb5', '#e58fae', '#b8322a'
NETWORK, LOSS, INK, PALE = '#dbe7f6', '#fde3c3', '#222', '#8a8a8a'
# torso's rim, torso, face, neck, right thigh and shin, left thigh and shin, right arm, left arm: as R has them
WHEEL = ('#90e0a8', '#a9ffc4', '#ff545a', '#64ff34', '#93c1ff', '#4c75ff', '#d5beff', '#cd7bff', '#23ff5a', '#00ff5f', '#daff64', '#fff850')

def line(a, b, colour, width): return f'<path d="M{a[0]:.0f} {a[1]:.0f}L{b[0]:.0f} {b[1]:.0f}" stroke="{colour}" stroke-width="{width}"/>'

def person(points, kind):
    "A person of 128 pixels by the joints: as 'photo', 'joints' or 'body', the last in the colours of R"
    p, parts = [(x, y) for x, y, _ in points], []
    torso = 'M' + 'L'.join(f'{x:.0f} {y:.0f}' for x, y in (p[2], p[5], p[11], p[8])) + 'Z'
    head = ((p[16][0] + p[17][0])/2, (p[16][1] + p[17][1])/2 - 2)
    if kind == 'joints': return ''.join(line(p[a], p[b], '#%02x%02x%02x' % COLORS[i], 4) for i, (a, b) in enumerate(LIMBS[:13]))
    arms, legs = ((2, 3), (3, 4), (5, 6), (6, 7)), ((8, 9), (9, 10), (11, 12), (12, 13))
    for i, (a, b) in enumerate((*legs, *arms)):
        colour = WHEEL[i + 4] if kind == 'body' else TROUSERS if i < 4 else SHIRT if i in (4, 6) else SKIN
        parts.append(line(p[a], p[b], colour, 10 if i < 4 else 7))
    if kind == 'photo': parts += [line(p[i], (p[i][0], p[i][1] + 5), SHOES, 9) for i in (10, 13)]
    parts.append(f'<path d="{torso}" fill="{WHEEL[1] if kind == "body" else SHIRT}" stroke="{WHEEL[0] if kind == "body" else SHIRT}" stroke-width="6"/>')
    parts.append(line(p[1], head, WHEEL[3] if kind == 'body' else SKIN, 6))
    if kind == 'photo': parts.append(f'<circle cx="{head[0]:.0f}" cy="{head[1] - 2:.0f}" r="9" fill="{HAIR}"/>')
    parts.append(f'<circle cx="{head[0]:.0f}" cy="{head[1]:.0f}" r="7" fill="{WHEEL[2] if kind == "body" else SKIN}"/>')
    return ''.join(parts)

def text(x, y, words, size=14, colour=INK, style=''): # `_x` at the end of a name is set low
    name, _, low = words.partition('_')
    low = f'<tspan dy="4" font-size="{size*.72:.0f}">{low}</tspan>' if low else ''
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="middle" {style}>{name}{low}</text>'

def tile(x, y, side, points, kind, name, made=False):
    "A picture in a frame, its name below"
    ground = {'photo': '#f3dfe2', 'joints': '#fff', 'body': '#000'}[kind]
    frame = f'stroke="{PALE}"' + (' stroke-dasharray="5 3"' if made else '')
    inside = f'<g transform="translate({x} {y}) scale({side/128:.3f})" stroke-linecap="round" fill="none">{person(points, kind)}</g>'
    return f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{ground}" {frame}/>{inside}' + text(x + side/2, y + side + 17, name)

def box(x, y, w, h, colour, *lines, size=14, round=6):
    "A network or a loss"
    words = ''.join(text(x + w/2, y + h/2 + 5 + (i - (len(lines) - 1)/2)*(size + 4), o, size) for i, o in enumerate(lines))
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{round}" fill="{colour}" stroke="{INK}" stroke-width=".8"/>{words}'

def arrow(*points, head=True, dashed=False):
    "A line through points"
    return (f'<path d="M{"L".join(f"{x} {y}" for x, y in points)}" fill="none" stroke="{INK}" stroke-width="1.3"' +
            (' stroke-dasharray="4 3"' if dashed else '') + (' marker-end="url(#head)"' if head else '') + '/>')

def generator(x, y, there, back, names):
    "One pass of the generator, its poses below it"
    out = [box(x, y, 180, 96, NETWORK), text(x + 90, y + 17, 'generator G'), box(x + 12, y + 50, 70, 34, '#fff', 'flow', 'network', size=12),
           box(x + 104, y + 50, 64, 34, '#fff', 'renderer', size=12), arrow((x + 82, y + 67), (x + 103, y + 67)), text(x + 93, y + 44, 'flow', 11)]
    for i, (points, kind, name) in enumerate(((there, 'joints', names[0]), (there, 'body', names[1]), (back, 'joints', names[2]))):
        out += [tile(x + i*64, y + 136, 54, points, kind, name), arrow((x + i*64 + 27, y + 134), (x + i*64 + 27, y + 98))]
    return ''.join(out)

def draw()->str:
    "The drawing"
    source, target, _ = load_sample()
    s, t = ([[float(o) for o in p] for p in photos.points[1]] for photos in (source, target))
    y, mid, out = 190, 238, []
    out += [tile(20, y, 96, s, 'photo', 'source photo I_s'), generator(166, y, s, t, ('P_s', 'R_s', 'P_t')), tile(416, y, 96, t, 'photo', 'made Î_t', True)]
    out += [generator(576, y, t, s, ('P_t', 'R_t', 'P_s')), tile(826, y, 96, s, 'photo', 'again Î_s', True)]
    out += [arrow((a, mid), (b, mid)) for a, b in ((117, 164), (347, 414), (513, 574), (757, 824))]
    # Eq. (2): the flows
    for x in (213, 623): out += [arrow((x, y + 50), (x, y - 12), head=False), box(x - 47, y - 44, 94, 32, LOSS, 'flow, Eq. (2)', size=13, round=16)]
    # Eq. (4) to (10): what the body and the critic say of the made picture
    judges = ((326, 128, NETWORK, 'critic D, given R', ['real? Eq. (4)']), (464, 174, NETWORK, 'f_3D', ['pose as asked for? Eq. (6)', 'shape as before? Eq. (7)']),
              (648, 158, '#fff', 'torso, cut out', ['same clothes? Eq. (8)']))
    for x, w, colour, name, asks in judges:
        out += [box(x, 40, w, 34, colour, name), box(x, 80, w, 2 + 18*len(asks), LOSS, *asks, size=12, round=10)]
    out += [arrow((68, y - 2), (68, 16), (727, 16), head=False), text(200, 11, 'the source photo', 11, PALE)]
    out += [arrow((x, 16), (x, 38)) for x in (390, 551, 727)]
    out += [arrow((464, y - 2), (464, 140), (390, 140), (390, 102)), arrow((464, 140), (551, 140), (551, 120)), arrow((551, 140), (727, 140), (727, 102))]
    # Eq. (3): the cycle
    out += [arrow((68, y + 120), (68, 432), (380, 432)), arrow((874, y + 120), (874, 432), (560, 432)), box(382, 412, 176, 40, LOSS, 'cycle, Eq. (3)', 'the same photo?', round=20)]
    head = f'<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8Z" fill="{INK}"/></marker>'
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 942 468" font-family="Helvetica, Arial, sans-serif"><title>SPICE</title>'
            f'<defs>{head}</defs><rect width="942" height="468" fill="#fff"/>' + '\n'.join(out) + '</svg>\n')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Draw SPICE', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('--out', type=Path, default=DRAWN)
    out = parser.parse_args().out
    out.write_text(draw(), encoding='utf-8')
    print(f'{out}: {out.stat().st_size/1e3:.0f} KB')
