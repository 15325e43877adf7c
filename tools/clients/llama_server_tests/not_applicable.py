"""Cases of llama-server's suite that cannot be asked of another server, each with its reason.

Patterns are searched for in the case's name, the first that is found counts. Everything else is portable: it passes, or
it is listed as failed.
"""

HUB = "needs a model from a hub"
PRIVATE = "a route or flag of llama-server alone"

NOT_APPLICABLE = [
    (
        r"test_completion\.py::(?!test_completion_(stream_)?with_openai)|test_ctx_shift_disabled_(short|long)|test_ignore_eos",
        "/completion, " + PRIVATE + "; ours is /v1/completions",
    ),
    (r"test_server_slots", "/slots, " + PRIVATE),
    (r"test_reasoning\[.*-(on|off)-", "--reasoning on|off, " + PRIVATE),
    (
        r"test_reasoning\[(deepseek-ai-DeepSeek-R1-Distill-Qwen-32B|Qwen-QwQ-32B|CohereForAI)",
        "llama.cpp's own edition of a template, with a variable enable_thinking that only llama.cpp sets",
    ),
    (r"test_date_inside_prompt", "templates that take today's date as a variable, which only llama.cpp sets"),
    (r"test_context_size_exceeded", "asserts llama-server's own error type; OpenAI's code is context_length_exceeded, and ours"),
    (r"test_embedding_error_prompt_too_long", "asserts llama-server's own wording of the error"),
    (r"test_invalid_chat_completion_req\[messages7", "two answers in a row, which OpenAI takes; llama-server would go on with the last"),
    (r"multiple_choices", "id_slot, a parameter of llama-server alone"),
    (r"test_ctx_shift_disabled_stream", "n_predict in a chat, a parameter of llama-server alone"),
    (r"test_anthropic_thinking$", "asks a model to think that cannot; Anthropic's API says 400, and ours"),
    (r"test_anthropic_empty_messages", "asserts that a conversation may be empty; Anthropic's API says 400"),
    (
        r"test_embedding_mixed_input\[(-|input3|input5|input7|input8|input9|input10)|test_embedding_content_text",
        "inputs that are empty, mix texts with tokens or are objects, which OpenAI's interface does not have",
    ),
    (r"test_security\.py::test_(access_public_endpoint|cors_options)", "started with --api-key: keys come with the gateway's own accounts"),
    (r"test_completion_with_(json_schema|grammar|invalid_grammar)", "json_schema and grammar in a chat, parameters of llama-server alone"),
    (r"timings_per_token", "timings in the stream, " + PRIVATE),
    (r"continue_final_message", "continue_final_message, a parameter of other servers"),
    (r"test_apply_chat_template", "a template that is built into llama.cpp"),
    (r"cors_origins_localhost", "--cors-origins localhost, " + PRIVATE),
    (r"test_compat_gcp", "Google's AIP_* variables, " + PRIVATE),
    (r"test_infill", "needs a model trained to fill in the middle"),
    (r"test_kv_keep_only_active", "--no-cache-idle-slots, " + PRIVATE),
    (r"test_lora", "needs adapters of another model"),
    (r"test_(mcp_servers|tools_builtin|proxy)\.py", "llama-server's own agent tools and proxy"),
    (r"test_rerank", "needs a model that ranks"),
    (r"test_router", "llama-server's way to start one process a model"),
    (r"test_sleep", "--sleep-idle-seconds, " + PRIVATE),
    (r"test_slot_save", "saves a slot's cache to a file, " + PRIVATE),
    (r"test_speculative", "flags of llama.cpp's speculation"),
    (r"test_stream\.py", "resumable streams by X-Conversation-Id, " + PRIVATE),
    (r"test_vision_api|test_anthropic_vision_base64|test_local_media_file", "needs a model that sees"),
    (r"_real_model|test_weather|test_calc_result|test_thoughts|test_hello_world", HUB),
    (r"test_completion_without_tool_call_slow|library_stops|test_anthropic_thinking_(with|stream)", HUB),
    (r"test_metrics\.py", "metrics by the names llamacpp:*; ours are edgellm_* and tested on their own"),
    (r"test_server_multiple_addresses", "several addresses in --host, " + PRIVATE),
    (r"test_load_split_model", HUB),
    (r"test_no_ui|test_access_static_assets", "the files of llama-server's own page"),
    (r"test_server_model_aliases_and_tags", "tags of a model, " + PRIVATE),
    (r"api_key", "keys come with the gateway's own accounts"),
    (r"test_cors_options\[.*(Methods|Credentials|Headers)", "asserts llama-server's own wording of a preflight's answer"),
    (r"tools_enabled|test_cors_proxy", "llama-server's own agent tools and proxy"),
    (r"template_assistant_prefill|test_verbose_debug|test_chat_template$", "__verbose, " + PRIVATE),
    (r"test_return_progress|llama_telemetry", "progress of a prefill in the stream, " + PRIVATE),
    (r"cached_tokens|test_completion_prompt_cache", "counts cached tokens one by one; our cache shares whole pages"),
    (r"test_ctx_shift_enabled", "shifts the context, which silently cuts the prompt"),
    (r"post_backend_sampling", "--backend_sampling, " + PRIVATE),
    (r"test_embedding_pooling_none", "--pooling none, " + PRIVATE),
    (r"test_embedding_usage", "counts the tokens of a BERT vocabulary"),
    (r"test_anthropic_tool_result_with_image|test_anthropic_vision_format", "asserts 500 for a picture; Anthropic's API says 400"),
]

# llama.cpp's generator of random numbers draws these texts at temperature 0.8. Everything else that these cases assert
# is checked, the text is not.
DRAWN_TEXT = [
    r"test_chat_completion\[",
    r"test_chat_completion_stream\[",
    r"test_chat_completion_with_openai_library",
    r"test_completion\[",
    r"test_completion_stream\[",
    r"test_completion(_stream)?_with_openai_library$",
    r"test_responses_(stream_)?with_openai_library",
    r"test_completion_with_response_format\[response_format1-",
    r"test_completion_with_response_format\[response_format3-",
]
