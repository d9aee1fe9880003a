// Encrypted Client Hello (RFC 9849): a server name that only the origin can read, behind one that everybody can.
package main

import (
	"crypto/ecdh"
	"crypto/tls"
	"encoding/binary"
)

const (
	echVersion  = 0xfe0d
	echX25519   = 0x0020 // DHKEM(X25519, HKDF-SHA256) of RFC 9180
	echSHA256   = 0x0001
	echAES128   = 0x0001
	echLongest  = 64 // the longest name that is hidden; shorter ones are padded
	echKeyBytes = 32
)

// hiding returns what a client needs to hide a server name behind a public one, and what the origin needs to find it.
// The key is the same in each process: nothing is secret here, and so they need not tell each other.
func hiding(public string) (list []byte, key tls.EncryptedClientHelloKey, err error) {
	private, err := ecdh.X25519().NewPrivateKey(append(make([]byte, echKeyBytes-1), 1))
	if err != nil {
		return nil, key, err
	}
	contents := []byte{0} // the id of the configuration
	contents = binary.BigEndian.AppendUint16(contents, echX25519)
	contents = appendSized(contents, private.PublicKey().Bytes())
	suite := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, echSHA256), echAES128)
	contents = appendSized(contents, suite)
	contents = append(contents, echLongest, byte(len(public)))
	contents = appendSized(append(contents, public...), nil) // no extensions
	config := appendSized(binary.BigEndian.AppendUint16(nil, echVersion), contents)
	return appendSized(nil, config), tls.EncryptedClientHelloKey{Config: config, PrivateKey: private.Bytes()}, nil
}

// appendSized appends bytes with their number before them, in 16 bits.
func appendSized(to, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(data))), data...)
}
