from workers.text.detokenizer import TextStream


def from_bytes(tokens: list[int]) -> str:
    return bytes(tokens).decode(errors="replace")


def stream(text: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    result = TextStream(from_bytes, stop)
    shown = []
    for token in text:
        shown.append(result.push(token))
        if result.stopped:
            break
    return shown, result


def test_text_is_shown_as_it_comes():
    assert stream(b"abc")[0] == ["a", "b", "c"]


def test_a_character_of_several_tokens_is_shown_whole():
    shown, _ = stream("aé€😀".encode())
    assert [part for part in shown if part] == ["a", "é", "€", "😀"]


def test_an_unfinished_character_at_the_end_is_shown_as_replaced():
    shown, result = stream(b"a\xf0\x9f")
    assert "".join(shown) == "a"
    assert result.flush() == "\ufffd"


def test_a_stop_string_ends_the_text_before_itself():
    shown, result = stream(b"one END two", ("END",))
    assert "".join(shown) == "one "
    assert result.stopped
    assert result.flush() == ""


def test_the_start_of_a_stop_string_is_held_back_until_it_is_none():
    shown, result = stream(b"xENy", ("END",))
    assert shown == ["x", "", "", "ENy"]
    assert not result.stopped


def test_what_is_held_back_at_the_end_is_shown():
    shown, result = stream(b"xEN", ("END",))
    assert "".join(shown) + result.flush() == "xEN"


def test_the_earliest_of_several_stop_strings_wins():
    shown, _ = stream(b"a.b!c", ("!", "."))
    assert "".join(shown) == "a"


def test_a_repetition_inside_a_stop_string_is_found():
    shown, result = stream(b"aaab", ("aab",))
    assert "".join(shown) == "a"
    assert result.stopped


def test_text_before_the_fewest_tokens_is_no_stop_string():
    # given
    result = TextStream(from_bytes, ("ab",))

    # when
    shown = [result.push(token, may_stop=False) for token in b"aba"]
    shown += [result.push(token) for token in b"bab"]

    # then: the match begins after what had to come
    assert "".join(shown) == "abab"
    assert result.stopped
