package otel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"

	"clawker-fw/internal/must"
)

// authority is the CA of one test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

const collectorName = "collector.test"

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signed := must.Get[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	certificate := must.Get[*x509.Certificate](t)(x509.ParseCertificate(signed))
	return authority{certificate, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return must.Get[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func (a authority) pem() string { return encodePEM("CERTIFICATE", a.certificate.Raw) }

func encodePEM(kind string, content []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
}

// leaf returns a certificate for one use and its key, as PEM.
func (a authority) leaf(t *testing.T, name string, use x509.ExtKeyUsage) (certificate, key string) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	signed := must.Get[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key))
	encoded := must.Get[[]byte](t)(x509.MarshalPKCS8PrivateKey(private))
	return encodePEM("CERTIFICATE", signed), encodePEM("PRIVATE KEY", encoded)
}

// settingsFor returns the settings for a collector with the authority's certificate.
func (a authority) settingsFor(t *testing.T, endpoint string, change map[string]any) []byte {
	t.Helper()
	certificate, key := a.leaf(t, "client.test", x509.ExtKeyUsageClientAuth)
	document := map[string]any{
		"endpoint": endpoint, "server_name": collectorName, "ca": a.pem(), "certificate": certificate, "key": key,
		"sample": 1.0, "resource": map[string]string{"service.name": "clawker-fw-coredns"},
	}
	for name, value := range change {
		if document[name] = value; value == nil {
			delete(document, name)
		}
	}
	return must.Get[[]byte](t)(json.Marshal(document))
}

func (a authority) settings(t *testing.T, endpoint string) *Settings {
	t.Helper()
	settings, err := Parse(a.settingsFor(t, endpoint, nil))
	must.Succeed(t, err)
	return settings
}

// collector is a gRPC server that keeps its requests.
type collector struct {
	address  string
	server   *grpc.Server
	mutex    sync.Mutex
	requests []*logs.LogsData
	clients  map[string]bool // serial numbers of their certificates
	shakes   int             // TLS handshakes
}

// collects starts a collector that replies with a function's result, until the test ends.
func (a authority) collects(t *testing.T, address string, reply func(ctx context.Context) ([]byte, error)) *collector {
	t.Helper()
	certificate, key := a.leaf(t, collectorName, x509.ExtKeyUsageServerAuth)
	pair := must.Get[tls.Certificate](t)(tls.X509KeyPair([]byte(certificate), []byte(key)))
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	listener := must.Get[net.Listener](t)(net.Listen("tcp", address))
	made := &collector{address: listener.Addr().String(), clients: map[string]bool{}}
	made.server = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert,
			VerifyPeerCertificate: func(_ [][]byte, chains [][]*x509.Certificate) error {
				made.mutex.Lock()
				defer made.mutex.Unlock()
				made.clients[chains[0][0].SerialNumber.String()] = true
				made.shakes++
				return nil
			},
		})),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			if method, _ := grpc.MethodFromServerStream(stream); method != exportMethod {
				t.Errorf("called %s", method)
			}
			request, response := new(logs.LogsData), new(emptypb.Empty)
			if err := stream.RecvMsg(request); err != nil {
				return err
			}
			answer, err := reply(stream.Context())
			if err != nil {
				return err
			}
			made.mutex.Lock()
			made.requests = append(made.requests, request)
			made.mutex.Unlock()
			response.ProtoReflect().SetUnknown(answer)
			return stream.SendMsg(response)
		}),
	)
	go made.server.Serve(listener)
	t.Cleanup(made.server.Stop)
	return made
}

func accepts(context.Context) ([]byte, error) { return nil, nil }

// names returns the names in the received records.
func (c *collector) names() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var names []string
	for _, request := range c.requests {
		for _, record := range request.ResourceLogs[0].ScopeLogs[0].LogRecords {
			names = append(names, attributesOf(record.Attributes)["dns.question.name"].(string))
		}
	}
	return names
}

func (c *collector) clientCount() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.clients)
}

func (c *collector) handshakes() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.shakes
}
