package otel

import (
	"maps"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"clawker-fw/internal/policy"
)

// request is an ExportLogsServiceRequest of one resource, decoded.
type request struct {
	resource map[string]any
	scope    string
	records  []logRecord
}

type logRecord struct {
	time, observed, severity uint64
	event                    string
	attributes               map[string]any
}

// fields calls a function for each field of a message, with its bytes, or its number.
func fields(t *testing.T, message []byte, each func(number protowire.Number, content []byte, value uint64)) {
	t.Helper()
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		message = message[max(size, 0):]
		var content []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			content, size = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, size = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			value, size = protowire.ConsumeFixed64(message)
		default:
			size = -1
		}
		if size < 0 {
			t.Fatalf("field %d of kind %d is malformed", number, kind)
		}
		message = message[size:]
		each(number, content, value)
	}
}

func attribute(t *testing.T, content []byte, into map[string]any) {
	t.Helper()
	var name string
	fields(t, content, func(number protowire.Number, content []byte, _ uint64) {
		if number == 1 {
			name = string(content)
			return
		}
		fields(t, content, func(number protowire.Number, content []byte, value uint64) {
			into[name] = map[protowire.Number]any{1: string(content), 3: int(value), 4: math.Float64frombits(value)}[number]
		})
	})
}

func decode(t *testing.T, message []byte) request {
	t.Helper()
	found := request{resource: map[string]any{}}
	fields(t, message, func(_ protowire.Number, logs []byte, _ uint64) {
		fields(t, logs, func(number protowire.Number, content []byte, _ uint64) {
			fields(t, content, func(inner protowire.Number, content []byte, _ uint64) {
				switch {
				case number == 1:
					attribute(t, content, found.resource)
				case inner == 1:
					fields(t, content, func(_ protowire.Number, name []byte, _ uint64) { found.scope = string(name) })
				default:
					found.records = append(found.records, decodeRecord(t, content))
				}
			})
		})
	})
	return found
}

func decodeRecord(t *testing.T, message []byte) logRecord {
	t.Helper()
	found := logRecord{attributes: map[string]any{}}
	fields(t, message, func(number protowire.Number, content []byte, value uint64) {
		switch number {
		case 1:
			found.time = value
		case 2:
			found.severity = value
		case 6:
			attribute(t, content, found.attributes)
		case 11:
			found.observed = value
		case 12:
			found.event = string(content)
		default:
			t.Errorf("field %d", number)
		}
	})
	return found
}

// A request holds the resource and each record with what was asked, what was decided and why.
func TestEncode(t *testing.T) {
	at := time.Unix(1_700_000_000, 5)
	client := netip.MustParseAddr("10.213.0.7")
	before := uint64(time.Now().UnixNano())

	found := decode(t, encode(encodeResource(map[string]string{"b": "2", "a": "1"}), []record{
		{at, 250 * time.Microsecond, client, "a.test", 1, policy.Outcome{Answered: true, Answers: 1}},
		{at, 0, client, "b.test", 65280, policy.Outcome{Answered: true, Reason: "no-rule", Code: 3}},
	}))

	if found.scope != "clawker-fw" || !maps.Equal(found.resource, map[string]any{"a": "1", "b": "2"}) {
		t.Errorf("got %q, %v", found.scope, found.resource)
	}
	wanted := []logRecord{
		{uint64(at.UnixNano()), 0, 9, "dns.query", map[string]any{
			"clawker_fw.action": "allowed", "clawker_fw.duration_ms": 0.25, "client.address": "10.213.0.7",
			"dns.answer.count": 1, "dns.question.name": "a.test", "dns.question.type": "A", "dns.response.code": "NOERROR",
		}},
		{uint64(at.UnixNano()), 0, 13, "dns.query", map[string]any{
			"clawker_fw.action": "refused", "clawker_fw.duration_ms": 0.0, "clawker_fw.reason": "no-rule",
			"client.address": "10.213.0.7", "dns.answer.count": 0, "dns.question.name": "b.test",
			"dns.question.type": "TYPE65280", "dns.response.code": "NXDOMAIN",
		}},
	}
	for index := range found.records {
		if found.records[index].observed < before {
			t.Errorf("observed at %d", found.records[index].observed)
		}
		found.records[index].observed = 0
	}
	if !reflect.DeepEqual(found.records, wanted) {
		t.Errorf("got %v, expected %v", found.records, wanted)
	}
}

// What a collector has not taken is read from its answer, which may have more fields, or be no answer at all.
func TestRejected(t *testing.T) {
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	answer := appendBytes(appendString(nil, 9, "more"), 1, appendString(partial, 2, "no room"))
	for content, wanted := range map[string]uint64{"": 0, string(answer): 7, "\xff": 0, "\x0a\x05\x08": 0, "\x08\x01": 0} {
		if found := rejected([]byte(content)); found != wanted {
			t.Errorf("%q: got %d, expected %d", content, found, wanted)
		}
	}
}

// A waiting record keeps no more of a name than its first octets.
func TestShortened(t *testing.T) {
	for name, wanted := range map[string]string{
		".": "", "a.test.": "a.test", strings.Repeat("x", 255) + ".": strings.Repeat("x", 255),
		strings.Repeat(`\255`, 250): strings.Repeat(`\255`, 63) + `\25`,
	} {
		if found := shortened(name); found != wanted {
			t.Errorf("%s: got %s", name, found)
		}
	}
}
