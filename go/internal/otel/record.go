package otel

import (
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// record is one query and what became of it. A waiting one takes about 200 bytes.
type record struct {
	at      time.Time
	took    time.Duration
	client  netip.Addr
	name    string
	kind    uint16
	reason  string // why it was refused, or "" if it was allowed
	code    int    // the response code
	answers int    // the number of answer records
}

// longestName bounds what a waiting record takes: escaped octets make a name up to four times as long.
const longestName = 255

// shortened returns the name without its final dot, cut if it is long. It shares no memory with a long one.
func shortened(name string) string {
	name = strings.TrimSuffix(name, ".")
	if len(name) > longestName {
		return strings.Clone(name[:longestName])
	}
	return name
}

const (
	scope     = "clawker-fw"
	eventName = "dns.query"
)

// encode returns the records of one resource. What is exported (ExportLogsServiceRequest) has the form of LogsData.
func encode(about *resource.Resource, records []record) *logs.LogsData {
	now := time.Now()
	ours := &logs.ScopeLogs{Scope: &common.InstrumentationScope{Name: scope}}
	for _, each := range records {
		ours.LogRecords = append(ours.LogRecords, each.encode(now))
	}
	return &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{Resource: about, ScopeLogs: []*logs.ScopeLogs{ours}}}}
}

// encode returns the record as a LogRecord. Its attributes are listed in docs/telemetry.md.
func (r record) encode(now time.Time) *logs.LogRecord {
	took := &common.AnyValue_DoubleValue{DoubleValue: r.took.Seconds() * 1000}
	found := &logs.LogRecord{
		TimeUnixNano: uint64(r.at.UnixNano()), ObservedTimeUnixNano: uint64(now.UnixNano()), EventName: eventName,
		Attributes: []*common.KeyValue{
			{Key: "clawker_fw.duration_ms", Value: &common.AnyValue{Value: took}},
			attribute("client.address", r.client.String()),
			{Key: "dns.answer.count", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(r.answers)}}},
			attribute("dns.question.name", r.name),
			attribute("dns.question.type", dns.Type(r.kind).String()),
			attribute("dns.response.code", dns.RcodeToString[r.code]),
		},
	}
	if r.reason == "" {
		found.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_INFO
		found.Attributes = append(found.Attributes, attribute("clawker_fw.action", "allowed"))
	} else {
		found.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_WARN
		found.Attributes = append(found.Attributes,
			attribute("clawker_fw.action", "refused"), attribute("clawker_fw.reason", r.reason))
	}
	return found
}

func attribute(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// Numbers of fields in an ExportLogsServiceResponse and in its ExportLogsPartialSuccess (collector/logs/v1). Its generated code
// is not used: it brings a gateway from HTTP to gRPC.
const (
	replyPartialSuccess protowire.Number = 1
	partialRejected     protowire.Number = 1
)

// rejected returns how many records the receiver of an ExportLogsServiceResponse has not taken.
func rejected(reply []byte) uint64 {
	partial, _ := protowire.ConsumeBytes(find(reply, replyPartialSuccess, protowire.BytesType))
	count, _ := protowire.ConsumeVarint(find(partial, partialRejected, protowire.VarintType))
	return count
}

// find returns what follows the tag of a field of a message, or nothing.
func find(message []byte, wanted protowire.Number, kind protowire.Type) []byte {
	for len(message) > 0 {
		found, of, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil
		}
		message = message[size:]
		if found == wanted && of == kind {
			return message
		}
		if size = protowire.ConsumeFieldValue(found, of, message); size < 0 {
			return nil
		}
		message = message[size:]
	}
	return nil
}
