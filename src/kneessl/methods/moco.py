"""MoCo v1 (He et al. 2020) and v2 (Chen et al. 2020): tell a slice's key from a queue of earlier keys."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.method import Encoder, Method, MethodSettings, Outcome
from kneessl.methods.settings import require_positive, require_share, require_whole
from kneessl.nets import heads
from kneessl.nets.momentum import Queue, ema_update
from kneessl.views.resample import to_device_of


class MoCo(Method):
    """The query of the first view is to find the key of the second; the key network is a moving average.

    Defaults are v2's. v1 has temperature .07, a linear head (`mlp` 0), and views without blur.

    Within a batch, batch norm tells a query which keys were normalised with it, and so gives its own away. The authors
    shuffle the keys over GPUs; on one GPU that changes nothing. `split_bn` imitates g GPUs instead: queries pass in g
    forwards of neighbours in the batch, keys in g forwards of every g-th clip. (Dealing them out in turn is our reading
    of the shuffle. Keys are not exchanged between processes.)

    Args:
        encoder: f.
        dim: Output size of the head.
        momentum: Decay of the key network, the same throughout.
        temperature: Of the loss.
        mlp: 1 for a head of two layers, the first as wide as the features; 0 for one Linear.
        queue: K, the number of keys; it must stay below the number of clips (without pooling, slices) in the training
            set, or a clip meets its own earlier keys as negatives.
        split_bn: g, the number of groups for batch norm; 1 is off.
    """

    def __init__(
        self,
        encoder: Encoder,
        dim: int = 128,
        momentum: float = 0.999,
        temperature: float = 0.2,
        mlp: bool = True,
        queue: int = 4096,
        split_bn: int = 1,
    ) -> None:
        super().__init__()
        require_whole(dim=dim, queue=queue, split_bn=split_bn)
        require_positive(temperature=temperature)
        require_share(momentum=momentum)
        self.encoder = encoder
        hidden = [encoder.features] if mlp else []
        self.projector = heads.mlp(encoder.features, *hidden, dim, norm=False)
        self.target = deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)
        self.queue = Queue(dim, queue)
        self.momentum, self.temperature, self.split_bn = momentum, temperature, split_bn

    @classmethod
    def adapt_settings(
        cls, given: MethodSettings, defaults: MethodSettings, samples: int, processes: int
    ) -> MethodSettings:
        """The queue holds at most half of an epoch's samples where none is asked for.

        Raises:
            UserError: the queue asked for holds as many keys as there are samples, so that each would meet itself; or
                `split_bn` with several processes.
        """
        if processes > 1 and given.get("split_bn", 1) > 1:
            raise UserError("settings.split_bn imitates several GPUs on one; leave it out with several processes")
        if given.get("queue", 0) >= samples:
            raise UserError(f"settings.queue is {given['queue']}; it must stay below the {samples} samples of an epoch")
        return {"queue": max(1, min(int(defaults["queue"]), samples // 2))} | dict(given)

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> the loss (thesis, 2.4), queries and keys; the keys join the queue."""
        n, groups = len(view1), self.split_bn
        if groups > 1 and n < 2 * groups:
            raise UserError(f"settings.split_bn is {groups}, and a batch holds {n}; each group needs at least 2")
        q = torch.cat([self.projector(self.encoder(part)) for part in view1.tensor_split(groups)])
        with torch.no_grad():
            dealt = to_device_of(torch.cat([torch.arange(i, n, groups) for i in range(groups)]), view2)
            k = torch.cat([self.target(part) for part in view2[dealt].tensor_split(groups)])[dealt.argsort()]
        loss = objectives.info_nce(q, k, self.queue.keys, self.temperature)
        self.queue.push(k)
        return Outcome(loss, q.detach(), k)

    def after_step(self, progress: float) -> None:
        """Move the key network towards the query network."""
        ema_update(self.target, nn.Sequential(self.encoder, self.projector), self.momentum)
