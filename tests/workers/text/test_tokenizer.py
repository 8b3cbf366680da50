from pathlib import Path

import pytest

from tests.workers.engines import write_tokenizer
from workers.text.tokenizer import BadTokenizer, Tokenizer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"chat_template": [{"name": "default"}]}', "chat_template must be a text"),
        ('{"bos_token": 5}', "bos_token must be an object, not 5"),
        ('{"eos_token": {}}', "eos_token lacks content"),
        ('{"eos_token": {"content": 2}}', "eos_token: content must be a text, not 2"),
    ],
)
def test_settings_of_a_tokenizer_that_do_not_fit_are_named(
    tmp_path: Path, settings: str, message: str
):
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(settings)
    with pytest.raises(BadTokenizer, match=f"tokenizer_config.json:? {message}"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("token", ['"<s>"', '{"content": "<s>", "lstrip": false}'])
def test_a_special_token_is_spelt_out_or_not(tmp_path: Path, token: str):
    write_tokenizer(tmp_path)
    template = '"chat_template": "{{ bos_token }}{{ messages[0].content }}"'
    (tmp_path / "tokenizer_config.json").write_text(f'{{"bos_token": {token}, {template}}}')
    tokens = Tokenizer(tmp_path).encode_chat([{"role": "user", "content": "a"}])
    assert Tokenizer(tmp_path).pieces(tokens) == ["<s>", "a"]
