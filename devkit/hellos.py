"""How a TLS client begins, octet for octet, also as no library would."""


def client_hello(server_name: bytes | None, further: bytes = b"") -> bytes:
    """Return a TLS 1.2 hello (RFC 5246, section 7.4.1.2) with extensions, then any server name (RFC 6066)."""

    def sized(content: bytes, octets: int) -> bytes:
        return len(content).to_bytes(octets, "big") + content

    extensions = further
    if server_name is not None:
        names = sized(b"\0" + sized(server_name, 2), 2)
        extensions += b"\0\0" + sized(names, 2)
    if extensions:
        extensions = sized(extensions, 2)
    body = b"\x03\x03" + bytes(32) + b"\0" + sized(b"\x13\x01\xc0\x2f", 2) + b"\x01\0" + extensions
    return b"\x16\x03\x01" + sized(b"\x01" + sized(body, 3), 2)


def in_records(hello: bytes, octets: int) -> bytes:
    """Return a hello in several records (RFC 8446, section 5.1), each with so many octets of it."""
    header, content = hello[:3], hello[5:]
    parts = (content[start : start + octets] for start in range(0, len(content), octets))
    return b"".join(header + len(part).to_bytes(2, "big") + part for part in parts)
