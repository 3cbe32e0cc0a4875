// Reports to an OpAMP server with opamp-go's client until its standard input ends; prints what happens, a line each.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Errorf(context.Context, string, ...any) {}

func text(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

func must(err error) {
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
}

func main() {
	url, key := os.Args[1], os.Args[2]
	var agent client.OpAMPClient
	if strings.HasPrefix(url, "ws") {
		agent = client.NewWebSocket(quiet{})
	} else {
		agent = client.NewHTTP(quiet{})
	}
	must(agent.SetAgentDescription(&protobufs.AgentDescription{
		IdentifyingAttributes: []*protobufs.KeyValue{text("service.name", "opamp-go"), text("service.version", "0.23.0")},
	}))
	must(agent.SetHealth(&protobufs.ComponentHealth{Healthy: true}))
	must(agent.SetAvailableComponents(&protobufs.AvailableComponents{
		Hash: []byte{1},
		Components: map[string]*protobufs.ComponentDetails{
			"receivers": {SubComponentMap: map[string]*protobufs.ComponentDetails{"otlp": {}}},
		},
	}))
	capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents
	must(agent.SetCapabilities(&capabilities))
	settings := types.StartSettings{
		OpAMPServerURL:    url,
		Header:            http.Header{"Authorization": []string{"Bearer " + key}},
		InstanceUid:       types.InstanceUid{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		EnableCompression: true,
		Callbacks: types.Callbacks{
			OnConnect:       func(context.Context) { fmt.Println("connected") },
			OnConnectFailed: func(_ context.Context, err error) { fmt.Println("refused", err) },
			OnError:         func(_ context.Context, err *protobufs.ServerErrorResponse) { fmt.Println("error", err.ErrorMessage) },
			GetEffectiveConfig: func(context.Context) (*protobufs.EffectiveConfig, error) {
				files := map[string]*protobufs.AgentConfigFile{"": {Body: []byte("receivers: {otlp: }")}}
				return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: files}}, nil
			},
		},
	}
	must(agent.Start(context.Background(), settings))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		must(agent.SetHealth(&protobufs.ComponentHealth{Healthy: false, LastError: lines.Text()}))
	}
	must(agent.Stop(context.Background()))
}
