package kernel

import "testing"

// Any bytes of a copied datagram are read as an address and a port, or as nothing.
func FuzzReadRefusal(f *testing.F) {
	header := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 7}
	f.Add(append(header, 1, 187, 200, 0, 0, 0, 0, 0))
	longest := append([]byte{0x4f}, header[1:]...)
	f.Add(append(longest, make([]byte, 48)...))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, packet []byte) {
		refusal, ok := ReadRefusal(packet)
		if ok && !(refusal.Source.Addr().Is4() && refusal.Place.Addr().Is4()) {
			t.Errorf("%v is read of %x", refusal, packet)
		}
		_, _ = ReadRefusals(packet)
	})
}
