package otel

import (
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/encoding/protowire"

	"clawker-fw/internal/policy"
)

// record is one query and what became of it. A waiting one takes about 200 bytes.
type record struct {
	at      time.Time
	took    time.Duration
	client  netip.Addr
	name    string
	kind    uint16
	outcome policy.Outcome
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

// Numbers of fields in opentelemetry-proto (collector/logs/v1, logs/v1, common/v1, resource/v1).
const (
	requestResourceLogs   protowire.Number = 1
	resourceLogsResource  protowire.Number = 1
	resourceLogsScopeLogs protowire.Number = 2
	resourceAttributes    protowire.Number = 1
	scopeLogsScope        protowire.Number = 1
	scopeLogsRecords      protowire.Number = 2
	scopeName             protowire.Number = 1
	logTime               protowire.Number = 1
	logSeverity           protowire.Number = 2
	logAttributes         protowire.Number = 6
	logObservedTime       protowire.Number = 11
	logEventName          protowire.Number = 12
	keyValueKey           protowire.Number = 1
	keyValueValue         protowire.Number = 2
	anyString             protowire.Number = 1
	anyInt                protowire.Number = 3
	anyDouble             protowire.Number = 4
	replyPartialSuccess   protowire.Number = 1
	partialRejected       protowire.Number = 1
)

// Severities of allowed and refused queries (SeverityNumber in logs/v1).
const (
	severityInfo = 9
	severityWarn = 13
)

const (
	scope     = "clawker-fw"
	eventName = "dns.query"
)

// encode returns an ExportLogsServiceRequest with the records of one resource.
func encode(resource []byte, records []record) []byte {
	now := time.Now()
	logs := appendBytes(nil, scopeLogsScope, appendString(nil, scopeName, scope))
	var encoded []byte
	for _, each := range records {
		encoded = each.append(encoded[:0], now)
		logs = appendBytes(logs, scopeLogsRecords, encoded)
	}
	all := appendBytes(nil, resourceLogsResource, resource)
	all = appendBytes(all, resourceLogsScopeLogs, logs)
	return appendBytes(nil, requestResourceLogs, all)
}

// append appends the record as a LogRecord. Its attributes are listed in docs/telemetry.md.
func (r record) append(to []byte, now time.Time) []byte {
	severity, action := uint64(severityInfo), "allowed"
	if !r.outcome.Allowed() {
		severity, action = severityWarn, "refused"
	}
	to = appendTime(to, logTime, r.at)
	to = protowire.AppendVarint(protowire.AppendTag(to, logSeverity, protowire.VarintType), severity)
	to = appendAttribute(to, logAttributes, "clawker_fw.action", stringValue(action))
	to = appendAttribute(to, logAttributes, "clawker_fw.duration_ms", doubleValue(r.took.Seconds()*1000))
	if !r.outcome.Allowed() {
		to = appendAttribute(to, logAttributes, "clawker_fw.reason", stringValue(r.outcome.Reason))
	}
	to = appendAttribute(to, logAttributes, "client.address", stringValue(r.client.String()))
	to = appendAttribute(to, logAttributes, "dns.answer.count", intValue(r.outcome.Answers))
	to = appendAttribute(to, logAttributes, "dns.question.name", stringValue(r.name))
	to = appendAttribute(to, logAttributes, "dns.question.type", stringValue(dns.Type(r.kind).String()))
	to = appendAttribute(to, logAttributes, "dns.response.code", stringValue(dns.RcodeToString[r.outcome.Code]))
	to = appendTime(to, logObservedTime, now)
	return appendString(to, logEventName, eventName)
}

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

func appendBytes(to []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendString(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendTime(to []byte, number protowire.Number, at time.Time) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(to, number, protowire.Fixed64Type), uint64(at.UnixNano()))
}

func appendAttribute(to []byte, number protowire.Number, name string, value []byte) []byte {
	pair := appendBytes(appendString(nil, keyValueKey, name), keyValueValue, value)
	return appendBytes(to, number, pair)
}

func stringValue(value string) []byte { return appendString(nil, anyString, value) }

func intValue(value int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, anyInt, protowire.VarintType), uint64(value))
}

func doubleValue(value float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, anyDouble, protowire.Fixed64Type), math.Float64bits(value))
}
