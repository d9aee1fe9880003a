package otel

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"clawker-fw/internal/statussocket"
)

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
