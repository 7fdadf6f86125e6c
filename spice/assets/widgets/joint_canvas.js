// Joints that can be dragged over a picture. The model's traits are those of `JointCanvas` in spice/pose_editor.py.
function render({model, el}) {
  const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
  canvas.style.cssText = 'touch-action: none; cursor: grab; border: 1px solid #bbb';
  let points = model.get('points');       // [x, y, score] of each joint, in pixels of the frame
  let held = -1;                          // the joint under the pointer, -1 is none
  let timer = null;                       // of the next message to Python
  let photo = null, newest = 0;           // the picture under the joints, and the number of the latest one

  function paint() {
    const [h, w] = model.get('frame'), zoom = model.get('zoom'), dots = window.devicePixelRatio || 1;
    const thick = Math.max(2, Math.min(h, w)*zoom/90);
    canvas.width = w*zoom*dots;
    canvas.height = h*zoom*dots;
    canvas.style.width = w*zoom + 'px';
    canvas.style.height = h*zoom + 'px';
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.fillStyle = 'white';
    pen.fillRect(0, 0, w*zoom, h*zoom);
    if (photo) pen.drawImage(photo, 0, 0, w*zoom, h*zoom);
    const colors = model.get('colors').map(c => `rgb(${c})`);
    pen.lineWidth = 1.4*thick;
    pen.lineCap = 'round';
    pen.globalAlpha = .75;
    model.get('limbs').forEach(([i, j], k) => {
      if (!points[i][2] || !points[j][2]) return;
      pen.strokeStyle = colors[k];
      pen.beginPath();
      pen.moveTo(points[i][0]*zoom, points[i][1]*zoom);
      pen.lineTo(points[j][0]*zoom, points[j][1]*zoom);
      pen.stroke();
    });
    pen.lineWidth = 1.5;
    pen.globalAlpha = 1;
    pen.strokeStyle = 'white';
    points.forEach(([x, y, score], i) => {
      if (!score) return;
      pen.fillStyle = colors[i];
      pen.beginPath();
      pen.arc(x*zoom, y*zoom, (i == held ? 1.9 : 1.25)*thick, 0, 7);
      pen.fill();
      pen.stroke();
    });
  }

  function place(event) {                 // of the pointer, in pixels of the frame
    const box = canvas.getBoundingClientRect(), zoom = model.get('zoom');
    return [(event.clientX - box.left)/zoom, (event.clientY - box.top)/zoom];
  }

  function near(event) {                  // the joint within 16 pixels of the screen, or -1
    const [x, y] = place(event);
    const far = points.map(p => p[2] ? Math.hypot(p[0] - x, p[1] - y) : Infinity);
    const i = far.indexOf(Math.min(...far));
    return far[i]*model.get('zoom') < 16 ? i : -1;
  }

  function send() {
    timer = null;
    model.set('points', points.map(p => [...p]));
    model.set('held', held);
    model.save_changes();
  }

  function move(event) {
    if (held < 0) {
      const i = near(event);
      canvas.title = i < 0 ? '' : model.get('names')[i];
      return;
    }
    const [h, w] = model.get('frame'), [x, y] = place(event);
    const keep = (value, most) => Math.round(10*Math.min(Math.max(value, 0), most))/10;
    points[held] = [keep(x, w), keep(y, h), 1];
    paint();
    timer ??= setTimeout(send, 40);       // milliseconds
  }

  function drop() {
    if (held < 0) return;
    clearTimeout(timer);
    held = -1;
    send();
    paint();
  }

  function load() {                       // a new picture is shown once it is decoded, unless a newer one has come
    const next = new Image(), number = ++newest;
    next.onload = () => {
      URL.revokeObjectURL(next.src);
      if (number == newest) { photo = next; paint(); }
    };
    next.src = URL.createObjectURL(new Blob([model.get('backdrop')]));
  }

  canvas.onpointerdown = event => {
    held = near(event);
    if (held < 0) return;
    canvas.setPointerCapture(event.pointerId);
    send();
    paint();
  };
  canvas.onpointermove = move;
  canvas.onpointerup = canvas.onpointercancel = drop;
  model.on('change:points', () => {       // what Python sends moves every joint but the one that is held
    const mine = points[held];
    points = model.get('points').map(p => [...p]);
    if (held >= 0) points[held] = mine;
    paint();
  });
  for (const trait of ['frame', 'zoom']) model.on('change:' + trait, paint);
  model.on('change:backdrop', load);
  el.append(canvas);
  load();
  paint();
}
export default {render};
