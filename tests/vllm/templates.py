"""Chat templates with the rules of the real models: what they demand of the roles, and the tokens they write."""

# Strict alternation of what is no call of a tool and no result; the system text goes into the last turn where that is
# the user's, and the tools before the user's last. Calls have ids of nine characters, and nothing is said beside them.
MISTRAL = """\
{%- set turns = messages -%}
{%- set instruction = "" -%}
{%- if messages and messages[0].role == "system" -%}
  {%- set instruction = messages[0].content + "\\n\\n" -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- set asked = turns | selectattr("role", "equalto", "user") | list -%}
{%- for turn in turns if turn.role != "tool" and not turn.tool_calls -%}
  {%- if (turn.role == "user") != (loop.index0 % 2 == 0) or turn.role not in ["user", "assistant"] -%}
    {{- raise_exception("Roles must alternate user/assistant/user/assistant after the optional system message") -}}
  {%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- for turn in turns -%}
  {%- if turn.role == "tool" or turn.tool_calls -%}
    {%- for id in ([turn.tool_call_id] if turn.role == "tool" else turn.tool_calls | map(attribute="id")) -%}
      {%- if id | length != 9 -%}{{- raise_exception("An id of a call has nine characters") -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if turn.role == "user" -%}
    {%- if tools and turn == asked[-1] -%}
      {{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" -}}
    {%- endif -%}
    {{- "[INST] " + (instruction if loop.last else "") + turn.content + "[/INST]" -}}
  {%- elif turn.role == "tool" -%}
    {{- '[TOOL_RESULTS] {"content": ' + turn.content + ', "call_id": "' + turn.tool_call_id + '"}[/TOOL_RESULTS]' -}}
  {%- elif turn.tool_calls -%}
    {{- "[TOOL_CALLS] [" -}}
    {%- for call in turn.tool_calls -%}
      {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + ("" if loop.last else ", ") -}}
    {%- endfor -%}
    {{- "]" + eos_token -}}
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
