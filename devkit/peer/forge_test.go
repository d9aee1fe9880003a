package main

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// A packet is headers with sums, and then what is sent. The sums were computed by other means.
func TestUDPPacket(t *testing.T) {
	for _, test := range []struct{ from, to, want string }{
		{
			"10.0.0.1", "10.0.0.2:53",
			"4500001e00000000401166cd0a0000010a000002" + "9c400035000ae6f8" + "6869",
		},
		{
			"fe80::1", "[fe80::2]:53",
			"60000000000a1140" + "fe800000000000000000000000000001" + "fe800000000000000000000000000002" +
				"9c400035000afdf6" + "6869",
		},
	} {
		packet := udpPacket(netip.MustParseAddr(test.from), netip.MustParseAddrPort(test.to), []byte("hi"))
		if got := hex.EncodeToString(packet); got != test.want {
			t.Errorf("%s: got %s, want %s", test.to, got, test.want)
		}
	}
}

// The sum of RFC 1071, section 3, also of an odd number of octets.
func TestChecksum(t *testing.T) {
	for text, want := range map[string]uint16{"0001f203f4f5f6f7": 0xddf2, "ff": 0xff00, "": 0} {
		data, _ := hex.DecodeString(text)
		if got := checksum(data); got != want {
			t.Errorf("%s: %04x", text, got)
		}
	}
}
