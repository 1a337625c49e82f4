import pytest
import torch
from safetensors.torch import load_file

from kneessl.finetuning.finetune import finetune
from kneessl.training.callbacks import StopAsked, StopBetweenBatches


def test_fine_tuning_resumes_to_the_same_model(knees, tmp_path):
    settings = {"task": "acl", "slices": 2, "size": 32, "epochs": 3, "batch": 4, "precision": "float32"}
    finetune(knees, out=tmp_path / "whole", **settings)

    def stop_in_third_epoch(self, trainer, *_):
        if trainer.current_epoch == 2:
            self.asked = True
            raise StopAsked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopBetweenBatches, "on_train_batch_start", stop_in_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            finetune(knees, out=tmp_path / "broken", **settings)
    finetune(knees, out=tmp_path / "broken", **settings, resume=True)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
