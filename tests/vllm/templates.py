"""Chat templates with the rules of the real models: what they demand of the roles, and the tokens they write."""

# Strict alternation; the system text goes into the last user turn.
MISTRAL = """\
{%- set turns = messages -%}
{%- set instruction = "" -%}
{%- if messages and messages[0].role == "system" -%}
  {%- set instruction = messages[0].content + "\\n\\n" -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
  {%- if (turn.role == "user") != (loop.index0 % 2 == 0) or turn.role not in ["user", "assistant"] -%}
    {{- raise_exception("Roles must alternate user/assistant/user/assistant after the optional system message") -}}
  {%- endif -%}
  {%- if turn.role == "user" -%}
    {{- "[INST] " + (instruction if loop.last else "") + turn.content + "[/INST]" -}}
  {%- else -%}
    {{- " " + turn.content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""

# As Mistral's first releases have it: no system role at all.
MISTRAL_WITHOUT_SYSTEM = """\
{{- bos_token -}}
{%- for turn in messages -%}
  {%- if (turn.role == "user") != (loop.index0 % 2 == 0) or turn.role not in ["user", "assistant"] -%}
    {{- raise_exception("Conversation roles must alternate user/assistant/user/assistant") -}}
  {%- endif -%}
  {%- if turn.role == "user" -%}
    {{- "[INST] " + turn.content + " [/INST]" -}}
  {%- else -%}
    {{- turn.content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""

# Any order of roles; each turn has a header, trimmed text and an end of its own.
LLAMA = """\
{{- bos_token -}}
{%- for turn in messages -%}
  {{- "<|start_header_id|>" + turn.role + "<|end_header_id|>\\n\\n" + turn.content | trim + "<|eot_id|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" -}}
{%- endif -%}
"""
