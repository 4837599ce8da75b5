"""Ask a model behind an OpenAI-compatible server which of two responses is better, one request for each order."""

from collections.abc import Mapping, Sequence

from rm_assets.backends.openai.chat import IDENTITY, ChatModel, ChatRequest, Completion
from rm_assets.backends.openai.client import RequestRefusedError
from rm_assets.core.gold.judging import Comparison, Judgement, question
from rm_assets.core.protocols import Reporter


class ServerJudge:
    """Comparisons to judgements with a server's model, at temperature 0."""

    def __init__(self, model: ChatModel, *, instructions: str, max_new_tokens: int, reporter: Reporter) -> None:
        self._model, self._instructions, self._reporter = model, instructions, reporter
        self._parameters = {"temperature": 0, "max_tokens": max_new_tokens}
        self.came: list[Judgement] = []
        """The answers of the last call of `judge` that came, in any order; all there is of it where it failed."""
        self.has_answered = False
        """Whether this judge has ever answered, so that a refusal is about its question and not about how it is asked."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a judgement besides comparison and the recipe's section, as far as it can be known from outside."""
        return IDENTITY

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """The judgements of all comparisons, in their order; without answer where the server refuses the question.

        Raises: ServerError; `came` holds those that came before it. SERVER_004 also if it refuses all, and has never answered.
        """
        self.came = []
        refusals: list[RequestRefusedError] = []

        def use(position: int, completion: Completion) -> Judgement:
            judgement = Judgement(comparisons[position].key, completion.text, completion.finished)
            self.came.append(judgement)
            self._reporter.progress(len(self.came), len(comparisons), "judgements")
            return judgement

        def refused(position: int, refusal: RequestRefusedError) -> Judgement:
            refusals.append(refusal)
            return Judgement(comparisons[position].key, None, False)

        requests = [self._request(comparison) for comparison in comparisons]
        judgements = self._model.complete_all(requests, use, refused)
        self.has_answered = self.has_answered or bool(self.came)
        if not self.has_answered:
            raise refusals[0]
        return judgements

    def _request(self, comparison: Comparison) -> ChatRequest:
        return ChatRequest(
            f"comparison {comparison.key[:8]} for prompt {comparison.prompt!r:.60}",
            [{"role": "user", "content": question(self._instructions, comparison)}],
            self._parameters,
        )
