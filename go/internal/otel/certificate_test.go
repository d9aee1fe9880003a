package otel

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"

	"google.golang.org/grpc/credentials"

	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// shows returns a connection to a server that presents the authority's certificate, and signs with a key.
func (a authority) shows(t *testing.T, key *ecdsa.PrivateKey) net.Conn {
	t.Helper()
	certificate, own := a.leaf(t, collectorName, x509.ExtKeyUsageServerAuth)
	pair := must.Get[tls.Certificate](t)(tls.X509KeyPair([]byte(certificate), []byte(own)))
	if key != nil {
		block, _ := pem.Decode([]byte(certificate))
		pair = tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	}
	listener := must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	go func() {
		if server, err := listener.Accept(); err == nil {
			_ = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}).Handshake()
			server.Close()
		}
	}()
	return must.Open[net.Conn](t)(net.Dial("tcp", listener.Addr().String()))
}

// A certificate is noted only after its owner has proven to have the key, and only if the authority signed it.
func TestNoting(t *testing.T) {
	signer := newAuthority(t)
	for what, test := range map[string]struct {
		server net.Conn
		want   bool
	}{
		"its own":             {signer.shows(t, nil), true},
		"shown without a key": {signer.shows(t, newKey(t)), false},
		"of somebody else":    {newAuthority(t).shows(t, nil), false},
	} {
		var noted []*statussocket.Certificate
		note := func(shown *statussocket.Certificate) { noted = append(noted, shown) }
		taken := noting{credentials.NewTLS(signer.settings(t, "127.0.0.1:1").tls), note}.Clone()

		_, _, err := taken.ClientHandshake(context.Background(), collectorName, test.server)

		if (err == nil) != test.want || (len(noted) == 1) != test.want {
			t.Errorf("%s: %v, noted %+v", what, err, noted)
		}
	}
}
