"""Saving a pipeline into a folder that holds another one."""

import json
import shutil
from pathlib import Path

from def_hub import DEFPipeline

from .conftest import add_detail, contents, enlarged


def test_saving_again_removes_the_files_of_the_former_pipeline(folder: Path) -> None:
    pipe = DEFPipeline.from_pretrained(folder)
    plain = contents(folder)
    pipe.save_pretrained(folder, max_shard_size="20KB")
    pipe.save_pretrained(folder, variant="fp16")
    pipe.save_pretrained(folder, variant="fp16", max_shard_size="20KB")
    assert len(list(folder.rglob("*.index.json"))) == len(list(folder.rglob("*.index.fp16.json"))) == 2
    for variant in (None, "fp16"):  # both in shards, each with its index
        again = DEFPipeline.from_pretrained(folder, variant=variant)
        assert enlarged(again).tobytes() == enlarged(pipe).tobytes()
    for path in folder.rglob("*fp16*"):
        path.unlink()
    pipe.save_pretrained(folder)
    assert contents(folder) == plain
    # a component that the new pipeline lacks; files of other origin stay
    add_detail(folder)
    (folder / "refsr_detail" / "notes.txt").write_text("mine")
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text("{}")
    pipe.save_pretrained(folder)
    kept = {"refsr_detail/notes.txt", "other/config.json"}
    assert set(contents(folder)) == {*plain, *kept} and DEFPipeline.from_pretrained(folder).refsr_detail is None
    # a pipeline of another class: its components are not ours
    index = folder / "model_index.json"
    add_detail(folder)
    index.write_text(index.read_text().replace("def_hub.DEFPipeline", "OtherPipeline"))
    pipe.save_pretrained(folder)
    assert (folder / "refsr_detail" / "config.json").is_file()
    index.write_text("{")  # truncated
    pipe.save_pretrained(folder)
    # a path is not the name of a component
    recorded = json.loads(index.read_text())
    index.write_text(json.dumps(recorded | {"../elsewhere": ["diffusers", "UNet2DModel"]}))
    shutil.copytree(folder / "unet", folder.parent / "elsewhere")
    pipe.save_pretrained(folder)
    assert contents(folder.parent / "elsewhere") == contents(folder / "unet")
