"""`examples/push_to_hub.py` where the Hub refuses, breaks off or is gone: the repository stays as it was."""

import pytest

from hear_hf.sharing import upload as hub_upload
from local_hub import connect
from pushing import REPOSITORY, push, refused


def test_without_a_token_it_says_how_to_get_one(folder, hub, monkeypatch, tmp_path):
    connect(hub, monkeypatch, tmp_path, token=None)
    assert "needs a token, found none" in refused(folder)
    assert not hub.repositories


def test_a_wrong_token_is_named_as_the_reason(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    assert "does not accept the token" in refused(folder)
    assert not hub.repositories


def test_a_namespace_of_somebody_else_is_refused(folder, hub):
    message = refused(folder, to="bob/hear")
    assert "does not let this token write to bob/hear" in message and "This changed nothing on the Hub" in message
    assert not hub.repositories


def test_a_repository_of_somebody_else_stays_as_it_was(folder, hub):
    before = hub.create("bob/hear").main.sha
    assert "does not let this token write" in refused(folder, to="bob/hear")
    assert hub.repositories["models", "bob/hear"].main.sha == before


def test_a_private_repository_of_somebody_else_is_refused(folder, hub):
    hub.create("bob/hear", private=True)
    assert "This changed nothing on the Hub" in refused(folder, to="bob/hear")


def test_a_gated_repository_is_named_as_such(folder, hub):
    hub.create("bob/hear", gated=True)
    assert "Access to bob/hear is restricted" in refused(folder, "--create_pr", to="bob/hear")


def test_offline_mode_is_named_as_the_reason(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "found HF_HUB_OFFLINE=1: unset it" in refused(folder)


def test_a_revision_that_is_missing_is_named(folder, hub):
    hub.create("alice/hear")
    assert "There is no branch trial in alice/hear" in refused(folder, "--revision", "trial")


def test_a_public_repository_is_not_taken_for_a_private_one(folder, hub):
    before = hub.create("alice/hear").main.sha
    assert "exists and is public" in refused(folder, "--private")
    assert hub.repositories[REPOSITORY].main.sha == before


def test_a_taken_tag_is_refused_before_the_upload(folder, hub):
    repository = hub.create("alice/hear")
    repository.refs["refs/tags/v1"] = repository.main.sha
    assert "found: ['v1']" in refused(folder, "--tag", "v1", "v2")
    assert len(repository.commits) == 1


@pytest.mark.parametrize("name", ["hear", "alice/hear/more", "alice/he ar"])
def test_a_name_that_is_none_is_refused(folder, hub, name):
    assert "repository" in refused(folder, to=name)
    assert not hub.requests


BREAKS = [
    ("PUT /lfs", {"at": 2}, "The connection to"),
    ("POST .*/commit/", {}, "The connection to"),
    ("POST .*/preupload", {"status": 503}, "an error of its own (503)"),
    ("POST .*/lfs/objects/batch", {"status": 507}, "storage of alice/hear is full"),
    ("POST .*/commit/", {"status": 413}, "too large"),
    (
        "POST .*/commit/",
        {"status": 403, "message": "Private repository storage limit reached"},
        "storage of alice/hear is full",
    ),
    ("POST .*/commit/", {"status": 412}, "Somebody else has changed"),
    ("POST .*/commit/", {"status": 429}, "too many requests"),
]


@pytest.mark.parametrize(("request_", "failure", "reason"), BREAKS)
def test_an_upload_that_breaks_leaves_the_repository_as_it_was(folder, hub, request_, failure, reason):
    before = hub.create("alice/hear", files={"model.safetensors": b"old"}).main
    hub.fail(request_, **failure)
    message = refused(folder)
    assert reason in message and "This changed nothing on the Hub." in message
    assert hub.repositories[REPOSITORY].main is before


@pytest.mark.parametrize(("request_", "failure", "reason"), BREAKS[:2])
def test_a_repository_made_for_an_upload_that_breaks_is_deleted_again(folder, hub, request_, failure, reason):
    hub.fail(request_, **failure)
    message = refused(folder)
    assert reason in message and "was deleted again" in message
    assert not hub.repositories


def test_an_upload_is_taken_up_again_where_it_broke(folder, hub):
    hub.create("alice/hear")
    hub.fail("PUT /lfs", at=2)
    refused(folder)
    hub.failures.clear()
    hub.requests.clear()
    push(folder)
    num_weights = sum(path.endswith(".safetensors") for path in hub.repositories[REPOSITORY].main.files)
    assert sum(request.startswith("PUT /lfs") for request in hub.requests) < num_weights


def test_an_answer_that_gets_lost_is_not_taken_for_a_failed_commit(folder, hub):
    hub.create("alice/hear")
    hub.fail("POST .*/commit/", after_the_deed=True)
    message = refused(folder)
    assert hub.repositories[REPOSITORY].main.sha in message and "look at" in message


def test_a_commit_by_somebody_else_meanwhile_is_not_overwritten(folder, hub, monkeypatch):
    repository, commit = hub.create("alice/hear"), hub_upload._Upload.commit

    def too_late(self, *args):
        repository.commit({"theirs.txt": b""}, "theirs")
        return commit(self, *args)

    monkeypatch.setattr(hub_upload._Upload, "commit", too_late)
    assert "Somebody else has changed alice/hear since the upload began" in refused(folder)
    assert repository.main.title == "theirs"


@pytest.mark.parametrize("moment", ["open", "commit"])
def test_a_new_repository_that_somebody_else_has_committed_to_is_not_deleted(folder, hub, monkeypatch, moment):
    method = "_create" if moment == "open" else "commit"
    ours = getattr(hub_upload._Upload, method)

    def late(self, *args):
        if moment == "commit":
            hub.repositories[REPOSITORY].commit({"theirs.txt": b""}, "theirs")
        found = ours(self, *args)
        if moment == "open":
            hub.repositories[REPOSITORY].commit({"theirs.txt": b""}, "theirs")
            hub.fail("POST .*/commit/", status=503)
            found = self.api.repo_info(**self.repository)
        return found

    monkeypatch.setattr(hub_upload._Upload, method, late)
    message = refused(folder)
    assert "stays, as it holds commits that may be of others" in message and "nothing is left" not in message
    assert hub.repositories[REPOSITORY].main.title == "theirs"


def test_a_new_repository_with_a_branch_or_pull_request_of_somebody_else_is_not_deleted(folder, hub, monkeypatch):
    commit = hub_upload._Upload.commit

    def late(self, *args):
        repository = hub.repositories[REPOSITORY]
        repository.refs["refs/pr/1"] = repository.main.sha
        return commit(self, *args)

    monkeypatch.setattr(hub_upload._Upload, "commit", late)
    hub.fail("POST .*/commit/", status=503)
    assert "stays" in refused(folder) and REPOSITORY in hub.repositories


def test_a_commit_to_a_new_repository_whose_answer_gets_lost_is_not_deleted(folder, hub):
    hub.fail("POST .*/commit/", after_the_deed=True)
    assert "stays" in refused(folder) and "config.json" in hub.repositories[REPOSITORY].main.files


def test_a_tag_that_fails_after_the_commit_is_told_apart_from_a_failed_upload(folder, hub):
    hub.create("alice/hear")
    hub.fail("POST .*/tag/", status=403)
    message = refused(folder, "--tag", "v1")
    assert f"The files are on the Hub, as commit {hub.repositories[REPOSITORY].main.sha}" in message


def test_a_repository_that_may_or_may_not_have_been_made_is_not_deleted(folder, hub):
    hub.fail("POST /api/repos/create", after_the_deed=True)
    assert "/alice/hear exists now, it is new and empty." in refused(folder)
    assert REPOSITORY in hub.repositories


def test_a_hub_that_is_gone_is_named(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "The connection to http://127.0.0.1:9 failed" in refused(folder)


def test_a_hub_that_goes_during_an_upload_is_not_said_to_be_unchanged(folder, hub):
    hub.create("alice/hear")
    hub.fail("GET /api/models/alice/hear", at=2)
    hub.fail("POST .*/commit/")
    assert "Files appear all together or not at all" in refused(folder)


def test_interrupting_an_upload_is_no_stack_trace(folder, hub, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_commit", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert refused(folder).startswith("Interrupted. The new repository alice/hear was deleted again")


def test_interrupting_its_undoing_too_says_what_is_left(folder, hub, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    for name in ("create_commit", "delete_repo"):
        monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", interrupt)
    assert "The new repository alice/hear could not be deleted again: delete it at" in refused(folder)
