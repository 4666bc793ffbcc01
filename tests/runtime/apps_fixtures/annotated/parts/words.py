import bioengine


@bioengine.app(num_cpus=0)
class Words:
    @bioengine.method
    async def reverse(self, text: str) -> str:
        return text[::-1]
