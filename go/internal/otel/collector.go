package otel

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

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

// reconnect is when a lost connection is tried again. By default, gRPC would wait for up to two minutes.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// alive is how a connection on which nothing comes back is noticed. Its time is the shortest that gRPC allows.
var alive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}

// dial returns a connection that connects when it is told to, or used. A call waits for it as long as it may take. What the
// collector shows of itself is noted.
func (s *Settings) dial(note func(*statussocket.Certificate)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+s.endpoint, // it is an address: nothing to resolve
		grpc.WithTransportCredentials(noting{credentials.NewTLS(s.tls), note}),
		grpc.WithAuthority(s.tls.ServerName),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(alive),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithUserAgent(scope),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
	)
}
