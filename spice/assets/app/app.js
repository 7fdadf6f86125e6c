'use strict';
// One page, no library. Everything is asked of the program that served it, and of nobody else (the page's security policy forbids more).
const $ = id => document.getElementById(id), page = Math.random().toString(36).slice(2), LARGEST = 30e6;
const me = {photo: null, person: 0, pose: null, made: false, wish: null, points: [], box: null, frame: 256, width: 0, height: 0,
            notes: ''};
let about = {names: [], limbs: [], colors: [], joints: []}, want = null, running = false, held = -1, before = false, shown = 0, picked = 0;

async function ask(path, body) {
  const json = !(body instanceof Blob);
  let reply;
  try {
    reply = await fetch(path, {method: 'POST', body: json ? JSON.stringify(body) : body,
                               headers: {'X-Spice': page, 'Content-Type': json ? 'application/json' : 'application/octet-stream'}});
  } catch { throw Error('The program does not answer. Is spice_app still running?'); }
  if (reply.ok && reply.headers.get('Content-Type') == 'application/json') return reply.json();
  if (reply.ok) return Object.assign(await reply.blob(), {note: reply.headers.get('X-Spice-Note')});
  const said = await reply.json().catch(() => ({error: 'Something went wrong.'}));
  throw Object.assign(Error(said.error), {overtaken: reply.status == 409});
}
const say = text => { $('status').textContent = text; };
const wrong = text => { $('error').textContent = text; };
const fail = e => { if (!e.overtaken) say(''), wrong(e.message); };
let jobs = 0;
const busy = on => { jobs += on ? 1 : -1; $('bar').hidden = jobs == 0; $('stage').setAttribute('aria-busy', jobs > 0); };
const whole = () => $('panel').elements.whole.value == '1';
const background = () => $('panel').elements.background.value;

// the picture on the stage

function lay(blob, width, height, alt) { // put a picture on the stage; its pixels may be fewer than its frame
  const old = $('picture').src;
  $('sheet').hidden = false; $('drop').hidden = true; $('top').hidden = false;
  $('sheet').style.setProperty('--ratio', `${width} / ${height}`);
  $('sheet').style.setProperty('--w', `min(760px, calc(72vh * ${width / height}))`);
  $('picture').src = URL.createObjectURL(blob); $('picture').alt = alt;
  $('over').setAttribute('viewBox', `0 0 ${width} ${height}`);
  if (old) URL.revokeObjectURL(old);
  return $('picture').decode().catch(() => {});
}
const view = () => whole() ? [me.width, me.height, me.box[0], me.box[1], (me.box[2] - me.box[0])/me.frame] : [me.frame, me.frame, 0, 0, 1];
const svg = (name, o, parent) => {
  const part = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const k in o) part.setAttribute(k, o[k]);
  return parent.append(part), part;
};

function draw() { // the joints over the picture
  if (choose.cancel) return;
  const over = $('over'), focus = document.activeElement?.dataset?.joint;
  over.replaceChildren();
  if (!me.box || before || !$('joints').checked) return;
  const [w, h, left, top, zoom] = view(), dot = Math.max(w, h)/Math.max(over.clientWidth, over.clientHeight, 1);
  const at = i => [left + zoom*me.points[i][0], top + zoom*me.points[i][1]];
  about.limbs.forEach(([i, j], k) => {
    const [a, b] = [at(i), at(j)];
    svg('line', {x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: `rgb(${about.colors[k]})`, 'stroke-width': 3*dot}, over);
  });
  me.points.forEach((_, i) => {
    const [cx, cy] = at(i);
    const g = svg('g', {class: i == held ? 'dot held' : 'dot', tabindex: 0, role: 'button', 'data-joint': i,
                        'aria-label': `${about.joints[i]}: drag it, or move it with the arrow keys`}, over);
    svg('circle', {cx, cy, r: (matchMedia('(pointer: coarse)').matches ? 20 : 13)*dot, class: 'hit'}, g);
    svg('circle', {cx, cy, r: (i == held ? 8 : i > 13 ? 4 : 5.5)*dot, class: 'seen', fill: `rgb(${about.colors[i]})`, 'stroke-width': 1.8*dot}, g);
    svg('title', {}, g).textContent = about.joints[i];
  });
  if (focus !== undefined) over.querySelector(`[data-joint="${focus}"]`)?.focus({preventScroll: true});
}

// what is wanted, the newest only: a pose, then a fast picture of it, then the full one

function wish(o) { if (choose.cancel) return; want = o; if (o.pose) wrong(''); if (!running) pump(); }
async function pump() {
  running = true; busy(true);
  while (want) {
    const now = want;
    want = null;
    try { await serve(now); } catch (e) { if (!want) fail(e); }
  }
  running = false; busy(false);
}
async function serve(now) {
  if (now.pose) {
    const hand = now.pose.joint, reply = await ask('pose', {photo: me.photo, person: me.person, whole: whole(), ...now.pose});
    if (now.pose.photo0 && now.pose.photo0 != me.photo) return;
    const mine = me.points[held];
    me.pose = reply.pose; me.points = reply.points;
    if (held >= 0) me.points[held] = mine;
    me.wish = hand === undefined && !now.pose.own ? now.pose : null;
    me.made = !now.pose.own;
    if (before) compare(false);
    draw();
  }
  if (want && Date.now() - shown < 900) return;
  await picture(true);
  if (!want && held < 0) await picture(false);
}
const asked = (pose, size) => ({photo: me.photo, person: me.person, pose, whole: whole(), background: background(), size});
async function picture(draft) {
  const number = picked, [w, h] = view(), original = before || !me.made;
  if (original && draft) return;
  if (!me.made) take(null);
  if (!original) { take(null); say(draft ? 'Making the picture …' : 'A first look. The full picture is on its way …'); }
  const blob = await ask('result', asked(original ? null : me.pose, draft ? 'draft' : 'screen'));
  if (number != picked) return;
  shown = Date.now();
  await lay(blob, w, h, original ? 'Your photo' : 'The person in the new pose');
  draw();
  if (original) return say(before ? 'This is your photo.' : me.notes || 'Pick a pose, or drag a joint.');
  if (draft) return;
  const wide = $('picture').naturalWidth, own = whole() ? me.width : me.square, more = own > wide ? `, ${own} wide when downloaded` : '';
  say([`Done: ${wide} × ${$('picture').naturalHeight} pixels${more}.`, me.notes, blob.note].join(' ').trim());
  me.larger = own > wide ? asked(me.pose, 'own') : null;
  take(blob);
}
function take(blob) { // what the download button gives
  if ($('save').href) URL.revokeObjectURL($('save').href);
  if (blob) Object.assign($('save'), {href: URL.createObjectURL(blob), download: 'reposed.png'}), $('save').removeAttribute('aria-disabled');
  else $('save').removeAttribute('href'), $('save').setAttribute('aria-disabled', true);
}
$('save').onclick = async e => { // a large photo is made at its own size only when it is taken home
  if ($('save').getAttribute('aria-disabled')) return e.preventDefault();
  if (!me.larger) return;
  e.preventDefault();
  busy(true); say('Making the picture at its own size …');
  try {
    const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(await ask('result', me.larger)), download: 'reposed.png'});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say('Downloaded.');
  } catch (e) { fail(e); } finally { busy(false); }
};

// photos and the people in them

async function upload(file) {
  if (file.size > LARGEST) throw Error(`The file has ${Math.round(file.size/1e6)} MB. Give one of at most 30 MB.`);
  const found = await ask('photo', file);
  if (found.people.length < 2) return [found, 0];
  const blob = await ask('result', {photo: found.photo, person: null, pose: null, whole: true, size: 'screen'});
  await lay(blob, found.width, found.height, 'Your photo');
  say(`${found.people.length} people are in the photo: click the one you mean.`);
  busy(false);
  try { return [found, await choose(found.people)]; } finally { busy(true); }
}
function choose(people) {
  $('over').replaceChildren();
  return new Promise((done, cancelled) => {
    choose.cancel = cancelled;
    const take = i => { choose.cancel = null; $('over').replaceChildren(); done(i); };
    people.forEach(([left, top, right, bottom], i) => {
      const one = svg('rect', {x: left, y: top, width: right - left, height: bottom - top, rx: 4, class: 'who', tabindex: 0, role: 'button',
                               'aria-label': `Person ${i + 1} of ${people.length}, from the left`}, $('over'));
      one.onclick = () => take(i);
      one.onkeydown = e => { if (e.key == 'Enter' || e.key == ' ') e.preventDefault(), take(i); };
    });
  });
}
function another() { // a new photo: what was on its way counts no more
  choose.cancel?.(Object.assign(Error(), {overtaken: true}));
  choose.cancel = null;
  return ++picked;
}
async function open(file) {
  if (!file) return;
  const number = another();
  busy(true); wrong(''); say('Looking for people …');
  try {
    const [found, person] = await upload(file);
    say('Fitting a body …');
    const seen = await ask('person', {photo: found.photo, person});
    if (number != picked) return;
    const old = me.wish;
    Object.assign(me, {photo: found.photo, person, width: found.width, height: found.height, notes: seen.notes, box: seen.box, frame: seen.frame, square: seen.square,
                       points: seen.points, pose: seen.pose, made: false, wish: null});
    compare(false);
    wish(old ? {pose: old} : {picture: true});
  } catch (e) { if (number == picked) fail(e); }
  finally { busy(false); }
}
async function follow(file) {
  if (!file) return;
  if (!me.photo) return wrong('Choose the photo of the person first.');
  const number = another(), mine = me.photo;
  busy(true); wrong(''); say('Looking for people in the second photo …');
  try {
    const [found, person] = await upload(file);
    if (number != picked) return;
    unpick();
    wish({pose: {like: {photo: found.photo, person}, photo0: mine}});
  } catch (e) { if (number == picked) fail(e), wish({picture: true}); }
  finally { busy(false); }
}

// hands

function place(e) { // of a pointer, in pixels of the canvas
  const o = $('over').getBoundingClientRect(), [w, h, left, top, zoom] = view();
  return [((e.clientX - o.left)*w/o.width - left)/zoom, ((e.clientY - o.top)*h/o.height - top)/zoom];
}
const unpick = () => document.querySelectorAll('#poses input').forEach(o => { o.checked = false; });
const pull = (joint, to, done) => {
  me.points[joint] = [...to];
  draw();
  wish({pose: {from: me.pose, joint, to, done}});
};
$('over').onpointerdown = e => {
  const dot = e.target.closest('g.dot');
  if (!dot) return;
  e.preventDefault();
  held = +dot.dataset.joint;
  $('over').setPointerCapture(e.pointerId);
  dot.focus({preventScroll: true});
};
$('over').addEventListener('touchstart', e => { if (e.target.closest('g.dot')) e.preventDefault(); }, {passive: false}); // no scrolling
$('over').onpointermove = e => { if (held >= 0) pull(held, place(e), false); };
$('over').onpointerup = $('over').onpointercancel = e => {
  if (held < 0) return;
  const joint = held, to = me.points[joint];
  held = -1;
  unpick();
  pull(joint, to, true);
};
$('over').onkeydown = e => {
  const joint = e.target.dataset?.joint, step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
  if (joint === undefined || !step) return;
  e.preventDefault();
  const far = me.frame/(e.shiftKey ? 16 : 64), [x, y] = me.points[joint];
  pull(+joint, [x + far*step[0], y + far*step[1]], true);
};
function compare(on) {
  before = on;
  $('before').setAttribute('aria-pressed', on);
}
$('before').onclick = () => { compare(!before); wish({picture: true}); };
$('file').onchange = $('like').onchange = e => { const o = e.target, file = o.files[0]; o.value = ''; (o.id == 'file' ? open : follow)(file); };
$('joints').onchange = draw;
$('again').onclick = () => {
  unpick();
  if (me.photo) compare(false), wish({pose: {own: true}});
};
$('panel').onsubmit = e => e.preventDefault();
for (const o of document.getElementsByName('background')) o.onchange = () => me.photo && wish({picture: true});
for (const o of document.getElementsByName('whole')) o.onchange = () => me.photo && wish(me.pose && me.wish ? {pose: me.wish} : {picture: true});
for (const kind of ['dragover', 'dragleave', 'drop']) document.addEventListener(kind, e => {
  e.preventDefault();
  $('drop').classList.toggle('over', kind == 'dragover');
  if (kind == 'drop') open(e.dataTransfer.files[0]);
});
addEventListener('resize', draw);

// the poses that have names

(async () => {
  try { about = await (await fetch('about')).json(); } catch { return wrong('The program does not answer. Is spice_app still running?'); }
  about.names.forEach((name, i) => {
    const label = document.createElement('label'), radio = document.createElement('input'), figure = document.createElement('i');
    Object.assign(radio, {type: 'radio', name: 'pose', value: name, onchange: () => {
      if (me.photo) wish({pose: {name}}); else { me.wish = {name}; say('Now choose a photo.'); } }});
    figure.style.backgroundPosition = `${-72*(i % 10)}px ${-72*Math.floor(i/10)}px`;
    label.append(radio, figure, name.replaceAll('_', ' '));
    $('poses').append(label);
  });
})();
