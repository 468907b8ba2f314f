"""An index of what docs/security.md claims: which test tries each claim, without `test_`, by its file."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLAIMS = {
    "no token is in a file of a run, and all goes to the Hub through the same checks": {
        "sharing/test_secrets.py": [
            "a_run_is_published_in_one_commit_through_the_checks_and_without_a_pickle",
            "no_file_of_a_run_holds_a_token",
        ]
    },
    "no link leads out of what is published": {
        "sharing/test_links.py": [
            "a_link_that_leads_out_of_a_model_s_folder_is_refused_by_name",
            "a_linked_card_of_a_data_set_is_refused_by_name",
            "a_linked_clip_or_class_of_a_data_set_is_refused_by_name",
            "a_link_that_leads_out_of_a_space_is_refused_by_name",
        ]
    },
    "code of a model is asked about, sees no secret, and ends": {
        "sharing/test_isolation.py": [
            "the_code_of_a_model_sees_no_token_and_no_key",
            "code_that_is_not_the_package_s_is_shown_and_not_run_unasked",
            "code_without_an_end_is_ended",
            "the_check_dies_with_its_parent_and_the_next_run_clears_what_is_left",
        ],
        "sharing/test_push_adapters.py": [
            "foreign_code_of_the_base_model_is_shown_and_refused",
            "a_base_model_that_changes_after_its_check_is_not_run",
        ],
    },
    "a data set is published without this machine's folders, and otherwise as it is": {
        "sharing/test_push_dataset.py": [
            "no_folder_of_this_machine_goes_up",
            "paths_below_the_source_are_names_at_any_depth_and_text_stays_as_it_is",
            "a_column_that_comes_back_otherwise_is_noticed",
        ]
    },
    "exported files hold no path of this machine": {
        "deployment/test_export_onnx.py": ["a_file_holds_no_path_and_no_trace_of_the_machine_that_wrote_it"],
        "deployment/test_export_openvino.py": ["the_folder_holds_what_optimum_intel_looks_for_and_no_path"],
    },
    "no command takes a token": {
        "sharing/test_secrets.py": ["no_command_takes_a_token_which_every_user_of_the_machine_could_read"]
    },
    "undoing an upload deletes nothing of others": {
        "sharing/test_push_to_hub_faults.py": [
            "a_commit_by_somebody_else_meanwhile_is_not_overwritten",
            "a_new_repository_that_somebody_else_has_committed_to_is_not_deleted",
            "a_new_repository_with_a_branch_or_pull_request_of_somebody_else_is_not_deleted",
            "a_commit_to_a_new_repository_whose_answer_gets_lost_is_not_deleted",
            "interrupting_its_undoing_too_says_what_is_left",
        ]
    },
    "a run resumes no other, replaces no other, and works beside no other in its folder": {
        "training/test_faults.py": [
            "a_folder_with_checkpoints_of_another_run_is_refused",
            "a_model_without_checkpoints_is_not_replaced_by_another_run_s",
            "two_runs_at_once_in_one_folder_are_refused",
        ],
        "data/test_fingerprints.py": ["another_sound_of_the_same_size_counts_as_another"],
    },
    "a path that exists is that file": {
        "data/test_sources.py": ["a_path_that_exists_is_that_file_and_others_are_patterns"],
    },
    "names are drawn and written as they are": {
        "training/test_reports.py": ["a_label_that_looks_like_a_formula_is_drawn_as_it_is"],
        "commands/test_space.py": ["a_label_that_looks_like_a_formula_is_drawn_as_it_is"],
        "sharing/test_push_to_hub_cards.py": [
            "labels_are_neither_markup_nor_metadata",
            "the_name_of_a_file_of_results_is_no_markup",
        ],
    },
    "an interrupted conversion loses no folder": {
        "conversion/test_conversion_refusals.py": ["a_folder_survives_an_interrupt_while_it_is_replaced"],
    },
    "clips of visitors are deleted, also after a restart": {
        "commands/test_space.py": ["clips_of_a_killed_run_are_cleared_at_start_and_those_of_a_running_one_are_not"],
        "sharing/test_endpoints.py": ["no_clip_is_left_on_the_endpoint"],
    },
    "a small recording takes little memory": {
        "data/test_hostile_sizes.py": [
            "an_absurd_rate_is_refused_by_name",
            "ten_minutes_of_eight_channels_at_655350_hz_are_refused_before_they_are_decoded",
            "samples_after_resampling_are_bounded_before_decoding",
            "many_channels_are_averaged_block_by_block",
        ]
    },
    "a small configuration builds no large model, and rates agree": {
        "model/test_hostile_checkpoints.py": [
            "absurd_sizes_are_refused_before_anything_is_built",
            "what_a_small_model_cannot_bear_is_refused_before_anything_is_built",
        ],
        "commands/test_space.py": ["a_feature_extractor_of_another_rate_than_the_model_s_is_refused"],
        "commands/test_predict.py": ["a_feature_extractor_of_another_rate_than_the_model_s_is_refused"],
    },
    "a Space serves a bounded queue, one revision, and models that its owner names": {
        "commands/test_space.py": [
            "the_queue_of_the_space_is_bounded_and_cannot_be_passed_by",
            "visitors_load_only_models_that_the_owner_of_the_page_names",
            "a_visitor_never_names_a_path_of_the_server",
            "a_visitors_repository_of_more_than_500_mb_is_not_downloaded",
            "the_space_runs_the_revision_that_was_published_not_the_newest",
            "the_space_pins_the_versions_that_the_package_is_tested_with",
        ],
        "sharing/test_push_space.py": ["the_model_s_revision_is_written_when_the_space_is_published"],
    },
    "a data set of others leads to its own files and the Hub's alone": {
        "data/test_own_files.py": [
            "pretraining_follows_no_address_and_no_path_out_of_the_data_set",
            "fine_tuning_follows_no_address_either",
            "no_column_is_decoded_where_an_image_would_be_fetched",
            "a_card_leads_to_no_table_outside_of_its_data_set",
        ],
        "sharing/test_hub_datasets.py": ["metadata_on_the_hub_lead_to_no_table_elsewhere"],
    },
    "an index of shards names files beside it": {
        "model/test_hostile_checkpoints.py": [
            "no_weights_outside_the_folder_are_read_whatever_an_index_of_shards_names",
            "no_weights_outside_the_folder_are_read_whatever_the_configuration_names",
        ],
        "sharing/test_push_to_hub_checks.py": ["an_index_of_shards_names_no_file_outside_its_folder"],
    },
    "numbers are refused or give finite ones": {
        "model/test_hostile_numbers.py": [
            "a_float_whose_power_no_float32_holds_is_refused",
            "a_stream_goes_on_after_a_block_of_1e300",
            "the_samples_in_a_hole_of_a_mask_are_silence_and_never_read",
            "a_batch_of_no_clips_is_refused",
            "float16_attentions_stay_finite_where_a_clip_has_no_valid_frame",
        ],
        "deployment/test_export_onnx.py": [
            "a_clip_that_pytorch_refuses_as_too_short_is_refused_by_a_file_too",
            "a_file_takes_a_hole_in_a_mask_as_silence_as_pytorch_does",
        ],
    },
    "what cannot be read ends a command in a short message": {
        "data/test_hostile_audio.py": ["the_content_decides_and_not_the_suffix"],
        "sharing/test_push_to_hub_checks.py": [
            "an_auto_map_of_another_type_is_refused_without_a_traceback",
            "scores_that_are_no_numbers_do_not_end_a_push_in_a_traceback",
            "a_path_too_long_for_the_system_is_refused_without_a_traceback",
        ],
        "conversion/test_conversion_refusals.py": [
            "names_with_escape_codes_or_750_kb_of_them_do_not_reach_the_terminal"
        ],
        "commands/test_unloadable_models.py": ["a_model_that_cannot_be_loaded_ends_the_command_with_its_name"],
        "commands/test_hostile_names.py": ["names_are_shown_on_a_line_each_in_printable_letters"],
    },
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_has_its_tests(claim):
    for file, names in CLAIMS[claim].items():
        found = re.findall(r"^def test_(\w+)", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(names) <= set(found), file
