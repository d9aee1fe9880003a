package otel

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net"

	"google.golang.org/grpc/credentials"

	"clawker-fw/internal/statussocket"
)

func describe(shown *x509.Certificate) *statussocket.Certificate {
	names := append([]string{}, shown.DNSNames...)
	for _, address := range shown.IPAddresses {
		names = append(names, address.String())
	}
	sum := sha256.Sum256(shown.Raw)
	return &statussocket.Certificate{
		Subject: shown.Subject.String(), Names: names, Begins: shown.NotBefore.Unix(), Ends: shown.NotAfter.Unix(),
		Digest: hex.EncodeToString(sum[:]),
	}
}

// noting are transport credentials that note each certificate that a collector proves to be its own.
type noting struct {
	credentials.TransportCredentials
	note func(*statussocket.Certificate)
}

// ClientHandshake notes the certificate at the end. Before, anybody could show it: only then is the key proven.
func (n noting) ClientHandshake(ctx context.Context, authority string, connection net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, found, err := n.TransportCredentials.ClientHandshake(ctx, authority, connection)
	if told, is := found.(credentials.TLSInfo); err == nil && is {
		n.note(describe(told.State.PeerCertificates[0])) // there is one: it has been verified
	}
	return secured, found, err
}

// Clone returns a copy, which notes as well.
func (n noting) Clone() credentials.TransportCredentials {
	return noting{n.TransportCredentials.Clone(), n.note}
}
