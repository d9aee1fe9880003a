package otel

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"clawker-fw/internal/resolver"
)

// attributesOf returns attributes by key.
func attributesOf(all []*common.KeyValue) map[string]any {
	values := map[string]any{}
	for _, attribute := range all {
		switch value := attribute.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			values[attribute.Key] = value.StringValue
		case *common.AnyValue_IntValue:
			values[attribute.Key] = int(value.IntValue)
		case *common.AnyValue_DoubleValue:
			values[attribute.Key] = value.DoubleValue
		}
	}
	return values
}

// A request has the resource, and each record has the query, the decision and its reason.
func TestEncode(t *testing.T) {
	at := time.Unix(1_700_000_000, 5)
	client := netip.MustParseAddr("10.213.0.7")
	before := uint64(time.Now().UnixNano())

	got := encode(encodeResource(map[string]string{"b": "2", "a": "1"}), []resolver.Outcome{
		{Client: client, Name: "a.test", Type: 1, Began: at, Took: 250 * time.Microsecond, Answers: 1},
		{Client: client, Name: "b.test", Type: 65280, Began: at, Reason: "no-rule", Code: 3},
	}).ResourceLogs[0]

	about := attributesOf(got.Resource.Attributes)
	if got.ScopeLogs[0].Scope.Name != "clawker-fw" || !maps.Equal(about, map[string]any{"a": "1", "b": "2"}) {
		t.Errorf("got %q, %v", got.ScopeLogs[0].Scope.Name, about)
	}
	want := []map[string]any{
		{
			"clawker_fw.action": "allowed", "clawker_fw.duration_ms": 0.25, "client.address": "10.213.0.7",
			"dns.answer.count": 1, "dns.question.name": "a.test", "dns.question.type": "A", "dns.response.code": "NOERROR",
		},
		{
			"clawker_fw.action": "refused", "clawker_fw.duration_ms": 0.0, "clawker_fw.reason": "no-rule",
			"client.address": "10.213.0.7", "dns.answer.count": 0, "dns.question.name": "b.test",
			"dns.question.type": "TYPE65280", "dns.response.code": "NXDOMAIN",
		},
	}
	for index, record := range got.ScopeLogs[0].LogRecords {
		if record.TimeUnixNano != uint64(at.UnixNano()) || record.ObservedTimeUnixNano < before || record.EventName != "dns.query" ||
			record.SeverityNumber != logs.SeverityNumber(9+4*index) || !maps.Equal(attributesOf(record.Attributes), want[index]) {
			t.Errorf("got %v", record)
		}
	}
}

// The number of rejected records is read from the collector's answer, which may have more fields, or be invalid.
func TestRejected(t *testing.T) {
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	answer := protowire.AppendString(protowire.AppendTag(nil, 9, protowire.BytesType), "more")
	answer = protowire.AppendBytes(protowire.AppendTag(answer, 1, protowire.BytesType), partial)
	for content, want := range map[string]uint64{"": 0, string(answer): 7, "\xff": 0, "\x0a\x05\x08": 0, "\x08\x01": 0} {
		var read wrapperspb.BytesValue
		_ = proto.Unmarshal([]byte(content), &read)
		if got := rejected(&read); got != want {
			t.Errorf("%q: got %d, expected %d", content, got, want)
		}
	}
}

// A waiting record keeps only the first bytes of a name.
func TestShortened(t *testing.T) {
	for name, want := range map[string]string{
		".": "", "a.test.": "a.test", strings.Repeat("x", 255) + ".": strings.Repeat("x", 255),
		strings.Repeat(`\255`, 250): strings.Repeat(`\255`, 63) + `\25`,
	} {
		if got := shortened(name); got != want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
