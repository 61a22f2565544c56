"""Your own training loop, with the body of the model on split servers.

    python examples/remote_body.py

starts a coordinator and two split servers on this machine, trains the bundled digits through them in the loop below,
and prints the test accuracy. With servers elsewhere, only the URL changes.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

import microsfl
from microsfl.zoo.datasets import load_data

SPEC = microsfl.RunSpec.parse(
    {
        "run": {"name": "own-loop", "managed": False},  # no clients of ours: the loop below drives the run
        "strategy": {"sync": 4, "body_optimizer": {"name": "Adam", "lr": 0.003}},  # a commit every 4 batches
    }
)


def train(coordinator: str, epochs: int = 15) -> float:
    """Train front and tail here and the body there; the accuracy on the test split."""
    torch.manual_seed(0)
    data = load_data("digits", None)
    front = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    body = microsfl.RemoteBody(run=SPEC.run.name, coordinator=coordinator)
    tail = nn.Linear(64, data.classes)

    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD([*front.parameters(), *tail.parameters()], lr=0.1)
    for _ in range(epochs):
        for x, y in DataLoader(data.train, batch_size=32, shuffle=True):  # type: ignore[arg-type, var-annotated]
            loss = criterion(tail(body(front(x))), y)
            loss.backward()  # crosses the cut; the body's gradient is stored on the other side
            optimizer.step()
            optimizer.zero_grad()
        body.close_round()  # an epoch is a round here: commit what still waits, and go on to the next

    body.eval()
    x, y = next(iter(DataLoader(data.test, batch_size=len(data.test))))  # type: ignore[arg-type, var-annotated]
    with torch.no_grad():
        return (tail(body(front(x))).argmax(1) == y).float().mean().item()


def main() -> None:
    with microsfl.Federation(SPEC) as federation:
        print(f"coordinator at {federation.coordinator}")
        print(f"test accuracy {train(federation.coordinator):.3f}")


if __name__ == "__main__":
    main()
