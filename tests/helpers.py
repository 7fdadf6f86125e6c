"A made-up SMPL file of the official form: 6,890 vertices, sparse regressor, chumpy objects, written without chumpy."
import pickle
import sys
import types

import numpy as np
import scipy.sparse

from spice.body import PARENTS, _free_model

def coarser(model, count=6890):
    "The free body with at most `count` vertices: neighbours are merged on a grid, then the last one is repeated"
    x = model['v_template']
    for cell in np.arange(.004, .05, .0005):
        _, cluster = np.unique(np.floor(x/cell).astype(int), axis=0, return_inverse=True)
        if cluster.max() < count: break
    cluster = cluster.ravel()
    n = cluster.max() + 1
    mean = scipy.sparse.csr_matrix((1/np.bincount(cluster)[cluster], (cluster, np.arange(len(x)))), (n, len(x)))
    pad = lambda a: np.concatenate([a, np.repeat(a[-1:], count - n, 0)])
    faces = cluster[model['f']]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    regressor = np.zeros((24, count))
    np.add.at(regressor.T, cluster, model['J_regressor'].T)
    shapes = (mean@model['shapedirs'].reshape(len(x), 30)).reshape(n, 3, 10)
    return dict(v_template=pad(mean@x), shapedirs=pad(shapes), J_regressor=regressor, weights=pad(mean@model['weights']), f=faces)

def fake_model(seed=0):
    "Arrays of a made-up SMPL body, with 300 shape directions and small pose directions"
    rng, model = np.random.default_rng(seed), coarser(_free_model())
    more = rng.normal(0, 1e-4, (6890, 3, 290))
    model['shapedirs'] = np.concatenate([model['shapedirs'], more], 2)
    model['posedirs'] = rng.normal(0, 1e-3, (6890, 3, 207))
    model['kintree_table'] = np.stack([np.array([2**32 - 1, *PARENTS[1:]]), np.arange(24)]).astype(np.uint32)
    return model

def _chumpy():
    "Stand-in modules for chumpy, whose objects are written by their module's name and a state"
    class Ch:
        def __init__(self, x): self.x = x
    class Select:
        def __init__(self, a, idxs, shape): self.a, self.idxs, self.preferred_shape = a, idxs, shape
    modules = {'chumpy': types.ModuleType('chumpy'), 'chumpy.ch': types.ModuleType('chumpy.ch'), 'chumpy.reordering': types.ModuleType('chumpy.reordering')}
    Ch.__module__, Ch.__qualname__, Select.__module__, Select.__qualname__ = 'chumpy.ch', 'Ch', 'chumpy.reordering', 'Select'
    modules['chumpy.ch'].Ch, modules['chumpy.reordering'].Select = Ch, Select
    return Ch, Select, modules

def fake_smpl(path, kind='pkl', protocol=2, model=None):
    "Write a made-up SMPL file; gives the plain arrays"
    model = dict(model or fake_model())
    if kind == 'npz':
        np.savez(path, **model)
        return model
    Ch, Select, modules = _chumpy()
    sys.modules.update(modules)
    try:
        shapes = model['shapedirs']
        written = dict(model, J_regressor=scipy.sparse.csc_matrix(model['J_regressor']), weights=Ch(model['weights']), bs_style='lbs', bs_type='lrotmin',
                       shapedirs=Select(Ch(shapes), np.arange(shapes.size), shapes.shape))
        with open(path, 'wb') as f: pickle.dump(written, f, protocol)
    finally:
        for name in modules: del sys.modules[name]
    return model
