package main

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

// What is told unasked says that the address has moved: whoever knew it takes the new one.
func TestAClaim(t *testing.T) {
	own, victim := net.HardwareAddr{2, 0, 0, 0, 0, 5}, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	want := []byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 5, 10, 0, 0, 53, 2, 0, 0, 0, 0, 9, 10, 0, 0, 53}
	if got := arpClaim(netip.MustParseAddr("10.0.0.53"), own, victim); !bytes.Equal(got, want) {
		t.Errorf("claimed %x, want %x", got, want)
	}
}

// TestAnAnswerNamesWhomItWasToldTo shows the frame that goes back, and that nobody else's question gets one.
func TestAnAnswerNamesWhomItWasToldTo(t *testing.T) {
	asker, victim := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	own := net.HardwareAddr{2, 0, 0, 0, 0, 5}
	request := bytes.Join([][]byte{
		bytes.Repeat([]byte{0xff}, 6), asker, {8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
		asker, {0, 0, 0, 0}, make([]byte, 6), {10, 0, 0, 53},
	}, nil)
	want := bytes.Join([][]byte{
		asker, own, {8, 6, 0, 1, 8, 0, 6, 4, 0, 2},
		victim, {10, 0, 0, 53}, asker, {0, 0, 0, 0},
	}, nil)
	if got := arpAnswer(request, netip.MustParseAddr("10.0.0.53"), victim, own); !bytes.Equal(got, want) {
		t.Errorf("answered\n%x, want\n%x", got, want)
	}
	if got := arpAnswer(request, netip.MustParseAddr("10.0.0.54"), victim, own); got != nil {
		t.Errorf("answered for an address that nobody asked for: %x", got)
	}
	copy(request[28:], []byte{10, 0, 0, 1})
	if got := arpAnswer(request, netip.MustParseAddr("10.0.0.53"), victim, own); got != nil {
		t.Errorf("answered somebody who has an address already: %x", got)
	}
}
