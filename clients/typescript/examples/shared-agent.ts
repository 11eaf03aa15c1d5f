/**
 * A LangGraph agent that Python and TypeScript run in turn, in one conversation: either goes on where the other stopped. This is the
 * TypeScript half; examples/shared_agent.py is the other, and says how both are run.
 */

import { GrpcSaver, PortableSerializer } from "@agentstorage/client/langgraph";
import { AIMessage, type BaseMessage, HumanMessage } from "@langchain/core/messages";
import { Annotation, Command, END, interrupt, messagesStateReducer, START, StateGraph } from "@langchain/langgraph";

/** The conversation, and where all its trips went. */
const State = Annotation.Root({
  messages: Annotation<BaseMessage[]>({ reducer: messagesStateReducer, default: () => [] }),
  visited: Annotation<Set<string>>({
    reducer: (before, more) => new Set([...before, ...more]),
    default: () => new Set(),
  }),
});

function texts({ messages }: typeof State.State): string[] {
  return messages.map((message) => message.text);
}

/** Ask before anything is booked. */
function propose(state: typeof State.State): typeof State.Update {
  return { messages: [new AIMessage(`Shall I book a night in ${texts(state).at(-1)}?`)] };
}

/** Wait for the answer, for as long as it takes, in whichever language it comes. */
function approve(state: typeof State.State): typeof State.Update {
  return { messages: [new HumanMessage(interrupt<string, string>(texts(state).at(-1) ?? ""))] };
}

/** Do what the answer says. */
function book(state: typeof State.State): typeof State.Update {
  const [city = "", , answer] = texts(state).slice(-3);
  if (answer !== "yes") {
    return { messages: [new AIMessage(`No ${city} then.`)] };
  }
  return { messages: [new AIMessage(`Booked ${city}.`)], visited: new Set([city]) };
}

/** Say something to the agent. */
async function main(threadId: string, said: string): Promise<void> {
  const builder = new StateGraph(State)
    .addNode("propose", propose)
    .addNode("approve", approve)
    .addNode("book", book)
    .addEdge(START, "propose")
    .addEdge("propose", "approve")
    .addEdge("approve", "book")
    .addEdge("book", END);

  const saver = new GrpcSaver({ ownerId: "example-user", serde: new PortableSerializer() });
  try {
    const graph = builder.compile({ checkpointer: saver });
    const config = { configurable: { thread_id: threadId } };
    const before = await graph.getState(config);
    console.log(
      `typescript found ${(before.values.messages ?? []).length} messages, next: ${before.next.join(", ") || "nothing"}`,
    );
    await graph.invoke(
      before.next.length > 0 ? new Command({ resume: said }) : { messages: [new HumanMessage(said)] },
      config,
    );
    const after = await graph.getState(config);
    for (const message of after.values.messages as BaseMessage[]) {
      console.log(`  ${message.type}: ${message.text}`);
    }
    const visited = [...(after.values.visited as Set<string>)].sort();
    console.log(`visited: ${visited.join(", ") || "nothing"}; next: ${after.next.join(", ") || "nothing"}`);
  } finally {
    await saver.close();
  }
}

const words = process.argv.slice(2);
const split = words.indexOf("--");
await main(words.slice(0, Math.max(split, 0)).join(" ") || "example-trips", words.slice(split + 1).join(" ") || "Rome");
