"""What each term of the losses costs: milliseconds and peak memory of a batch of 8 at 256 x 256, forward and backward.

    python benchmarks/losses.py                    # both feature networks, on the fastest device
    python benchmarks/losses.py --quick --device cpu --json rows.json

The row `people` is the feature network that ships with the library, `vgg19` one of ImageNet's size (with random weights: time doesn't know the
difference). `correctness` starts from given features; `correctness, features too` includes the network's pass over both renderings. Memory is above
what the inputs and the network hold.
"""
import torch
from common import Bench
from spice.consistency import Appearance, pose_loss, shape_loss, turn_between
from spice.discriminator import Discriminator
from spice.features import load_features
from spice.losses import Adversarial, Correctness, affine_regularisation, correctness, cycle_terms, features_of, pixel, true_flow
from spice.systems.parsing import semantic_style
from spice.people import People
from spice.systems.upis import patch_style

def learn(x): return x.detach().clone().requires_grad_()

def both_ways(loss, *inputs):
    "A call that computes a loss and its gradients"
    def run():
        for o in inputs: o.grad = None
        loss().backward()
    return run

def main():
    bench = Bench('What the terms of the losses cost, forward and backward')
    size, b = bench.pick(256, quick=128), bench.pick(8, quick=2)
    source, target = People(size, 'valid', poses='everyday', yaw=20., samples=1, device=bench.device).pairs(range(b))
    random = torch.Generator().manual_seed(0)
    flows = [learn((4*torch.randn(b, 2, size//o, size//o, generator=random)).to(bench.device)) for o in (8, 4)]
    networks = {'people': load_features('people', device=bench.device)}
    if not bench.quick: networks['vgg19'] = load_features('random', 'vgg19', device=bench.device)
    for name, features in networks.items(): with_features(bench, name, features, source, target, flows, size, b)
    without(bench, source, target, flows, size, b)
    bench.save()

def measure(bench, name, run, size, b):
    "Time and memory of one term"
    bench.time(name, run, size, b, least=1 if 'vgg19' in name else 3)     # seconds a call on a CPU
    bench.memory(name, run, size, b)

def with_features(bench, name, features, source, target, flows, size, b):
    "Terms that look at pictures through a feature network"
    made, wheels = learn(target.image), (source.wheel, target.wheel)
    for term in ('percep', 'style'):
        measure(bench, f'{term}, {name}', both_ways(lambda: cycle_terms(features, made, source.image, (term,))[term], made), size, b)
    for flow, layer in zip(flows, ('relu4_1', 'relu3_1')):
        s, t = (features_of(features, o, [layer])[layer] for o in wheels)
        for sampling in ('gaussian', 'bilinear'):
            measure(bench, f'correctness {layer} {sampling}, {name}', both_ways(lambda: correctness(flow, s, t, sampling=sampling), flow), size, b)
    check = Correctness(features)
    measure(bench, f'correctness, features too, {name}', both_ways(lambda: check(flows, *wheels), *flows), size, b)
    look, degrees = Appearance(features), turn_between(source.rotmats[:, 0], target.rotmats[:, 0])
    each = torch.arange(1, 25, device=bench.device).view(24, 1, 1)
    masks = {'torso': (target.surface.torso, source.surface.torso), '24 parts': tuple(o.surface.parts[:, None] == each for o in (target, source))}
    for what, (mt, ms) in masks.items():
        measure(bench, f'appearance {what}, {name}', both_ways(lambda: sum(o.mean() for o in look(made, source.image, mt, ms, degrees*0).values()), made), size, b)
    s, t = (features_of(features, o.image, ['relu2_1'])['relu2_1'] for o in (source, target))
    t, label = learn(t), torch.arange(10, device=bench.device).view(10, 1, 1)
    hot = [(o.parsing[:, None] == label).float() for o in (target, source)]
    measure(bench, f'semantic style, {name}', both_ways(lambda: semantic_style(t, s, *hot), t), size, b)
    measure(bench, f'patch style, {name}', both_ways(lambda: patch_style(t, s, *[o.repeat(1, 2, 1, 1)[:, :18] for o in hot]), t), size, b)

def without(bench, source, target, flows, size, b):
    "Terms that need no features"
    made, R = learn(target.image), target.wheel
    adversarial = Adversarial(Discriminator('fashion').to(bench.device))
    found, betas = learn(target.rotmats), learn(target.betas)
    flow, visibility = target.flow_from(source)
    for name, run in {'pixel': both_ways(lambda: pixel(made, source.image), made),
                      'adversarial, generator': both_ways(lambda: adversarial.for_generator(made, R), made),
                      'adversarial, critic': both_ways(lambda: adversarial.for_critic(made, R, source.image, source.wheel), made),
                      'affine regularisation': both_ways(lambda: sum(affine_regularisation(o, k) for o, k in zip(flows, (3, 5))), *flows),
                      'pose and shape, f_3D aside': both_ways(lambda: pose_loss(found, source.rotmats) + shape_loss(betas, source.betas), found, betas),
                      'true flow': both_ways(lambda: true_flow(flows, flow, visibility), *flows)}.items(): measure(bench, name, run, size, b)

if __name__ == '__main__': main()
