"""DICOM films written with pydicom, and their elements as bytes, so that a test can give them any value at all."""

from typing import NamedTuple

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")  # with lengths of four bytes


def write_dicom(path, pixels, photometric="MONOCHROME2", bits=12, syntax=None, **fields):
    """A digital radiograph of `pixels`; `fields` are further DICOM elements: values, DataElements to choose a type, or
    None to leave one out."""
    from pydicom import DataElement
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.dtype.kind == "f":
        data.FloatPixelData = pixels.tobytes()
    else:
        data.PixelData = pixels.tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(data, name)
        elif isinstance(value, DataElement):
            data[name] = value
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def lookup_table(entries, first, bits, bytes_of=None, signed=False):
    """An item of a Modality or VOI LUT Sequence; `bytes_of` is the entries' type where they are bytes, else words."""
    from pydicom.dataset import Dataset

    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 65536, first, bits])
    if bytes_of is None:
        table.add_new("LUTData", "US", entries.tolist())
    else:
        table.add_new("LUTData", "OW", entries.astype(bytes_of).tobytes())
    return table


class Span(NamedTuple):
    """Where an element's length and value lie in a file of explicit, little-endian elements."""

    group: int
    element: int
    length_at: int
    start: int
    end: int


def element_spans(content, start=132, end=None):
    """The elements of a file in order, those of sequence items behind their sequence."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        long = content[start + 4 : start + 6] in _LONG
        value = start + (12 if long else 8)
        length_at = value - (4 if long else 2)
        stop = min(value + int.from_bytes(content[length_at:value], "little"), end)
        group, element = (int.from_bytes(content[start + i : start + i + 2], "little") for i in (0, 2))
        yield Span(group, element, length_at, value, stop)
        if content[start + 4 : start + 6] == b"SQ":
            yield from element_spans(content, value + 8, stop)
        start = stop


def with_value(content, span, value):
    """The file with other bytes as an element's value."""
    value += b" " * (len(value) % 2)
    length = len(value).to_bytes(span.start - span.length_at, "little")
    return content[: span.length_at] + length + value + content[span.end :]


def overwrite(path, keyword, value):
    """Gives the first element of that keyword other bytes, whatever its type allows."""
    from pydicom.datadict import tag_for_keyword

    content, tag = path.read_bytes(), tag_for_keyword(keyword)
    span = next(span for span in element_spans(content) if (span.group << 16 | span.element) == tag)
    path.write_bytes(with_value(content, span, value))
    return path
