package otel

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
)

// Certificate is what a collector has shown of itself. Times are in seconds since 1970.
type Certificate struct {
	Subject string   `json:"subject"`
	Names   []string `json:"names"` // DNS names and addresses
	Begins  int64    `json:"begins"`
	Ends    int64    `json:"ends"`
	Digest  string   `json:"sha256"` // in hexadecimal
}

func describe(shown *x509.Certificate) *Certificate {
	names := append([]string{}, shown.DNSNames...)
	for _, address := range shown.IPAddresses {
		names = append(names, address.String())
	}
	sum := sha256.Sum256(shown.Raw)
	return &Certificate{
		shown.Subject.String(), names, shown.NotBefore.Unix(), shown.NotAfter.Unix(), hex.EncodeToString(sum[:]),
	}
}

// watched returns the configuration, changed to note each certificate that a collector proves to be its own.
func watched(config *tls.Config, note func(*Certificate)) *tls.Config {
	watching := config.Clone()
	watching.VerifyConnection = func(state tls.ConnectionState) error {
		note(describe(state.PeerCertificates[0])) // there is one: it has been verified
		return nil
	}
	return watching
}
