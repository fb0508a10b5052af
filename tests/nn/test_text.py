"""The byte reader: any text in, the same text out."""

import numpy
import pytest
from helpers import assert_on, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

import xpnet
from xpnet.nn import ByteReader, Embedding, TransformerBlock

TEXTS = st.lists(st.text(max_size=8), max_size=4)


@settings(derandomize=True, deadline=None, database=None, max_examples=50)
@given(texts=TEXTS)
def test_texts_come_back(texts):
    reader = ByteReader(40)
    indices = reader(texts)
    assert indices.shape == (len(texts), 40)
    assert reader.texts(indices) == texts
    assert xpnet.to_numpy(reader.mask(indices)).sum() == sum(len(text.encode()) for text in texts)


def test_entries(device):
    indices = ByteReader(3)(["ab", b"\x00\xff\x01\x02"])
    assert_on(indices, device, "int32", (2, 3))
    assert_same(indices, numpy.asarray([[97, 98, 256], [0, 255, 1]], dtype="int32"))


def test_what_is_cut_inside_a_letter():
    assert ByteReader(2).texts(ByteReader(2)(["aé"])) == ["a\N{REPLACEMENT CHARACTER}"]


def test_for_attention(device):
    reader, x = ByteReader(6), ["short", "longer text"]
    embedding, block = Embedding(reader.entries, 4, seed=0), TransformerBlock(4, 2, seed=1)
    indices = reader(x)
    y = block(embedding(indices), mask=reader.mask(indices))
    assert_on(y, device, "float32", (2, 6, 4))


def test_what_was_read_before_stays(device):
    reader = ByteReader(3)
    indices = reader(["ab", "c"])
    assert reader(indices) is indices
    assert_same(xpnet.jit(lambda x: reader(x) + 1)(indices), indices + 1)
    with pytest.raises(ValueError, match=r"must have the shape \(batch, 3\), received \(2, 2\)"):
        reader(indices[:, :2])
    with pytest.raises(TypeError, match="a text must be str or bytes"):
        reader(numpy.asarray([0.5]))
    assert_same(reader(numpy.asarray(["ab", "c"])), indices)


def test_no_texts():
    with pytest.raises(TypeError, match=r"needs a list of texts, received one, 'abc'\. Write \[text\]"):
        ByteReader(3)("abc")
    with pytest.raises(TypeError, match="a text must be str or bytes, received int: 5"):
        ByteReader(3)([5])
    with pytest.raises(ValueError, match="length must be a positive integer, received 0"):
        ByteReader(0)
