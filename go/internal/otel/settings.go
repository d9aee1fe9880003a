// Package otel is the CoreDNS plugin that sends a log record for each query to an OpenTelemetry Collector: OTLP
// over gRPC, with mutual TLS.
//
// It never delays an answer. A record waits in a queue of fixed size, or is lost and counted.
package otel

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

// file is the format of the settings. An empty object turns telemetry off.
type file struct {
	Endpoint    netip.AddrPort    `json:"endpoint"`
	ServerName  string            `json:"server_name"` // a DNS name in the collector's certificate
	CA          string            `json:"ca"`          // PEM, like the next two
	Certificate string            `json:"certificate"`
	Key         string            `json:"key"`
	Sample      float64           `json:"sample"` // share of the allowed queries with a record; 1 if missing
	Resource    map[string]string `json:"resource"`
}

// Settings are the collector and the sampling of records.
type Settings struct {
	endpoint string
	tls      *tls.Config
	sample   float64
	resource *resource.Resource
}

// Parse returns the settings in a file, or nil if it turns telemetry off. Errors never repeat secrets.
func Parse(content []byte) (*Settings, error) {
	read := file{Sample: 1}
	if err := hotfile.Unmarshal(content, &read); err != nil {
		return nil, fmt.Errorf("invalid settings: %w", syntaxOnly(err))
	}
	if strings.Join(strings.Fields(string(content)), "") == "{}" {
		return nil, nil
	}
	config, err := read.tlsConfig()
	if err != nil {
		return nil, err
	}
	switch {
	case !read.Endpoint.IsValid():
		return nil, errors.New("endpoint is missing")
	case read.ServerName == "":
		return nil, errors.New("server_name is missing")
	case read.Sample < 0 || read.Sample > 1:
		return nil, errors.New("sample is not between 0 and 1")
	}
	return &Settings{read.Endpoint.String(), config, read.Sample, encodeResource(read.Resource)}, nil
}

// syntaxOnly returns an error about syntax, or one without the wrong value.
func syntaxOnly(err error) error {
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s has a value of another type", kind.Field)
	}
	return err
}

func (f file) tlsConfig() (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(f.Certificate), []byte(f.Key))
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(f.CA)) {
		return nil, errors.New("ca has no certificate")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ServerName:   f.ServerName,
	}, nil
}

func encodeResource(attributes map[string]string) *resource.Resource {
	encoded := &resource.Resource{}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		encoded.Attributes = append(encoded.Attributes, attribute(name, attributes[name]))
	}
	return encoded
}

func init() { resolver.Register("otel", setup) }

// setup reads `otel FILE SOCKET` from the Corefile: the settings, and the socket for the plugin's status. The
// resolver starts without a usable file: telemetry must not keep it from answering.
func setup(controller *caddy.Controller) error {
	controller.Next()
	arguments := controller.RemainingArgs()
	if len(arguments) != 2 || controller.NextBlock() {
		return plugin.Error("otel", controller.ArgErr())
	}
	settings := hotfile.New(arguments[0], Parse)
	settings.Refresh() // the status reports an error
	listener, err := statussocket.Listen(arguments[1], 0o666)
	if err != nil {
		return plugin.Error("otel", err)
	}
	exporter := NewExporter(settings.Value)
	go settings.Follow()
	go exporter.Run()
	go statussocket.Tell(listener, func() any {
		_, loaded := settings.Fresh()
		counts := statussocket.Telemetry{Sent: exporter.sent.Load(), Lost: exporter.lost.Load(), Collector: exporter.shown.Load()}
		return statussocket.Plugin{Status: loaded, Telemetry: counts}
	})
	controller.OnShutdown(func() error {
		exporter.Close()
		return nil
	})
	resolver.ConfigOf(controller).Report = recording(settings.Value, exporter.Add)
	return nil
}

func recording(settings func() *Settings, add func(resolver.Outcome)) func(resolver.Outcome) {
	return func(outcome resolver.Outcome) {
		if settings := settings(); settings != nil && (outcome.Reason != "" || rand.Float64() < settings.sample) {
			outcome.Name = shortened(outcome.Name)
			add(outcome)
		}
	}
}
