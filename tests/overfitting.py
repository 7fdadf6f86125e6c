"Short trainings: what the tests of all systems share."
import torch

def steps_on(system, batch, steps, rates, betas=(.5, .999), full=.5):
    "Each step on the batch; after the share `full` of them rates fall, down to a fiftieth"
    adam = torch.optim.Adam([dict(params=p, lr=r) for p, r in zip(system.groups(), rates)], betas=betas)
    fall = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: min(1., (1 - k/steps)/max(1 - full, 1/steps) + .02))
    for _ in range(steps):
        step = system.step(batch)
        adam.zero_grad()
        step.total.backward()
        adam.step()
        fall.step()
        yield step

def off_person(batch, image, truth):
    "Mean absolute difference where a person is, in the source or in the target"
    person = torch.stack([(batch[f'{o}_wheel'] > -1).any(1) for o in ('source', 'target')]).any(0)[:, None]
    return float(((image - truth).abs()*person).sum()/(3*person.sum()))

def quietly(learn, steps):
    "Train without bars and tables"
    with learn.no_bar(), learn.no_logging(): learn.train_to(steps)
    return learn
