package otel

import (
	"strings"
	"time"

	"github.com/miekg/dns"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"clawker-fw/internal/resolver"
)

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
func encode(about *resource.Resource, records []resolver.Outcome) *logs.LogsData {
	now := time.Now()
	ours := &logs.ScopeLogs{Scope: &common.InstrumentationScope{Name: scope}}
	for _, each := range records {
		ours.LogRecords = append(ours.LogRecords, encodeRecord(each, now))
	}
	return &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{Resource: about, ScopeLogs: []*logs.ScopeLogs{ours}}}}
}

// encodeRecord returns a query and what became of it as a LogRecord. Its attributes are listed in docs/telemetry.md.
func encodeRecord(r resolver.Outcome, now time.Time) *logs.LogRecord {
	took := &common.AnyValue_DoubleValue{DoubleValue: r.Took.Seconds() * 1000}
	found := &logs.LogRecord{
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
		found.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_INFO
		found.Attributes = append(found.Attributes, attribute("clawker_fw.action", "allowed"))
	} else {
		found.SeverityNumber = logs.SeverityNumber_SEVERITY_NUMBER_WARN
		found.Attributes = append(found.Attributes,
			attribute("clawker_fw.action", "refused"), attribute("clawker_fw.reason", r.Reason))
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

func rejected(reply []byte) uint64 {
	partial, _ := protowire.ConsumeBytes(find(reply, replyPartialSuccess, protowire.BytesType))
	count, _ := protowire.ConsumeVarint(find(partial, partialRejected, protowire.VarintType))
	return count
}

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
