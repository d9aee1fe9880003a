package otel

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

const (
	longestQueue = 8192 // records, of about 200 bytes
	longestBatch = 512  // records
	batchEvery   = time.Second
	callLimit    = 5 * time.Second
	connectAgain = time.Hour              // otherwise the collector's certificate could be years old
	closeLimit   = 500 * time.Millisecond // for the current call when the process ends, and for the waiting records
	sayEvery     = 10 * time.Second
)

const exportMethod = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

// Exporter sends records in batches, one call at a time. A failed call is not repeated: its records are lost.
type Exporter struct {
	settings func() *Settings
	records  chan resolver.Outcome
	sent     atomic.Uint64
	lost     atomic.Uint64
	shown    atomic.Pointer[statussocket.Certificate] // the collector's, at the last handshake
	longest  time.Duration                            // of a connection
	patience time.Duration                            // with a call
	calls    context.Context
	cancel   context.CancelFunc
	stop     chan struct{}
	ended    chan struct{}

	// Used only by Run:
	current    *Settings // of the connection
	connection *grpc.ClientConn
	since      time.Time // the time of the connection
	failing    bool      // whether the last call failed
	trouble    string    // the last message
	saidAt     time.Time
	lostBefore uint64
}

// NewExporter returns an exporter to the endpoint of the current settings.
func NewExporter(settings func() *Settings) *Exporter {
	calls, cancel := context.WithCancel(context.Background())
	return &Exporter{
		settings: settings,
		records:  make(chan resolver.Outcome, longestQueue),
		longest:  connectAgain,
		patience: callLimit,
		calls:    calls,
		cancel:   cancel,
		stop:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
}

// Add queues a record. Without room, it is lost.
func (x *Exporter) Add(outcome resolver.Outcome) {
	select {
	case x.records <- outcome:
	default:
		x.lost.Add(1)
	}
}

// Run sends records until Close is called.
func (x *Exporter) Run() {
	defer close(x.ended)
	ticks := time.NewTicker(batchEvery)
	defer ticks.Stop()
	batch := make([]resolver.Outcome, 0, longestBatch)
	for more := true; more; {
		batch, more = x.collect(batch[:0], ticks.C)
		settings := x.settings()
		if settings != x.current {
			x.shown.Store(nil) // it may be another collector
		}
		if settings != nil && (settings != x.current || time.Since(x.since) > x.longest) {
			x.connect(settings)
		}
		switch {
		case len(batch) == 0:
		case x.connection == nil, !more && x.failing:
			x.lost.Add(uint64(len(batch)))
		default:
			x.send(batch)
		}
		if settings == nil || !more {
			x.disconnect()
		}
	}
}

// Close sends the waiting records if the collector accepts them at once, and ends Run without delaying the
// process.
func (x *Exporter) Close() {
	close(x.stop)
	select {
	case <-x.ended:
	case <-time.After(closeLimit):
	}
	x.cancel()
	<-x.ended
}

func (x *Exporter) collect(batch []resolver.Outcome, ticks <-chan time.Time) (collected []resolver.Outcome, more bool) {
	for len(batch) < longestBatch {
		select {
		case outcome := <-x.records:
			batch = append(batch, outcome)
		case <-ticks:
			return batch, true
		case <-x.stop:
			for len(x.records) > 0 {
				batch = append(batch, <-x.records)
			}
			return batch, false
		}
	}
	return batch, true
}

// connect replaces the connection, even without records, to check whether the collector's certificate is a new
// one.
func (x *Exporter) connect(settings *Settings) {
	fresh, err := settings.dial(x.shown.Store)
	if err != nil {
		x.say("can't connect to the collector: " + err.Error())
		return
	}
	fresh.Connect()
	x.disconnect()
	x.current, x.connection, x.since = settings, fresh, time.Now()
}

func (x *Exporter) disconnect() {
	if x.connection != nil {
		_ = x.connection.Close() // fails only if it is closed
	}
	x.current, x.connection = nil, nil
}

func (x *Exporter) send(batch []resolver.Outcome) {
	count := uint64(len(batch))
	ctx, cancel := context.WithTimeout(x.calls, x.patience)
	defer cancel()
	reply := new(wrapperspb.BytesValue)
	err := x.connection.Invoke(ctx, exportMethod, encode(x.current.resource, batch), reply)
	x.failing = err != nil
	refused := count
	if err == nil {
		refused = min(count, rejected(reply))
	}
	x.sent.Add(count - refused)
	x.lost.Add(refused)
	x.report(err)
}

func (x *Exporter) report(err error) {
	lost := x.lost.Load()
	trouble := ""
	switch {
	case err != nil:
		trouble = status.Code(err).String() + ": " + status.Convert(err).Message()
	case lost > x.lostBefore:
		trouble = "the collector accepts fewer records than there are"
	}
	x.lostBefore = lost
	x.say(trouble)
}

var log = clog.NewWithPlugin("otel")

func (x *Exporter) say(trouble string) {
	if (trouble == "") == (x.trouble == "") || time.Since(x.saidAt) < sayEvery {
		return
	}
	x.trouble, x.saidAt = trouble, time.Now()
	if trouble == "" {
		log.Infof("records are sent again; %d were lost since the start", x.lost.Load())
		return
	}
	log.Warningf("records are being lost: %s", trouble)
}

func describe(shown *x509.Certificate) *statussocket.Certificate {
	names := append([]string{}, shown.DNSNames...)
	for _, address := range shown.IPAddresses {
		names = append(names, address.String())
	}
	return &statussocket.Certificate{
		Subject: shown.Subject.String(), Names: names, Begins: shown.NotBefore.Unix(), Ends: shown.NotAfter.Unix(),
		Digest: fmt.Sprintf("%x", sha256.Sum256(shown.Raw)),
	}
}

type noting struct {
	credentials.TransportCredentials
	note func(*statussocket.Certificate)
}

// ClientHandshake notes the collector's certificate after the handshake, when its key is verified.
func (n noting) ClientHandshake(ctx context.Context, authority string, connection net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, connection)
	if tlsInfo, ok := info.(credentials.TLSInfo); err == nil && ok {
		n.note(describe(tlsInfo.State.PeerCertificates[0])) // a verified handshake has one
	}
	return secured, info, err
}

// Clone returns a copy that also notes certificates.
func (n noting) Clone() credentials.TransportCredentials {
	return noting{n.TransportCredentials.Clone(), n.note}
}

// reconnect limits the wait before reconnecting. By default, gRPC would wait for up to two minutes.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// alive detects a dead connection. Its time is the shortest that gRPC allows.
var alive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}

// dial returns a connection that connects on demand, for which calls wait. It notes the collector's certificate.
func (s *Settings) dial(note func(*statussocket.Certificate)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+s.endpoint, // an address: nothing to resolve
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

// longestName limits a waiting record: escaped bytes make a name up to four times as long.
const longestName = 255

// shortened returns the name without its final dot, cut if it is long. It shares no memory with a long one.
func shortened(name string) string {
	name = strings.TrimSuffix(name, ".")
	return strings.Clone(name[:min(len(name), longestName)])
}

const (
	scope     = "clawker-fw"
	eventName = "dns.query"
)

// encode returns the records of one resource. An ExportLogsServiceRequest has the form of LogsData.
func encode(about *resource.Resource, records []resolver.Outcome) *logs.LogsData {
	now := time.Now()
	ours := &logs.ScopeLogs{Scope: &common.InstrumentationScope{Name: scope}}
	for _, outcome := range records {
		ours.LogRecords = append(ours.LogRecords, encodeRecord(outcome, now))
	}
	return &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{Resource: about, ScopeLogs: []*logs.ScopeLogs{ours}}}}
}

// encodeRecord returns a query and its outcome as a LogRecord. docs/telemetry.md lists the attributes.
func encodeRecord(r resolver.Outcome, now time.Time) *logs.LogRecord {
	took := &common.AnyValue_DoubleValue{DoubleValue: r.Took.Seconds() * 1000}
	record := &logs.LogRecord{
		TimeUnixNano: uint64(r.Began.UnixNano()), ObservedTimeUnixNano: uint64(now.UnixNano()), EventName: eventName,
		Attributes: []*common.KeyValue{
			{Key: "clawker_fw.duration_ms", Value: &common.AnyValue{Value: took}},
			attribute("client.address", r.Client.String()),
			{Key: "dns.answer.count", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(r.Answers)}}},
			attribute("dns.question.name", r.Name),
			attribute("dns.question.type", dns.Type(r.Type).String()),
			attribute("dns.response.code", dns.RcodeToString[r.Code]),
		},
	}
	if r.Reason == "" {
		record.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_INFO
		record.Attributes = append(record.Attributes, attribute("clawker_fw.action", "allowed"))
	} else {
		record.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_WARN
		record.Attributes = append(record.Attributes,
			attribute("clawker_fw.action", "refused"), attribute("clawker_fw.reason", r.Reason))
	}
	return record
}

func attribute(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// rejected returns the number of records that the collector rejected. An ExportLogsServiceResponse has the form of
// a BytesValue, and its ExportLogsPartialSuccess starts like an Int64Value. Their generated code would add a
// gateway from HTTP to gRPC.
func rejected(answer *wrapperspb.BytesValue) uint64 {
	var partial wrapperspb.Int64Value
	_ = proto.Unmarshal(answer.Value, &partial) // an unreadable answer rejects nothing
	return uint64(partial.Value)
}
